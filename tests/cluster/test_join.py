#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Three nodes form a cluster by tokens; who has neither a certificate of its CA nor a token gets nothing (P8)."""
import glob
import os
import socket
import ssl
import time

import harness

ALERT = 0x15  # the TLS record type
PROTOCOLS = ["kedge-peer/1", "kedge-bulk/1", "kedge-ctl/1", "kedge-join/1", "http/1.1", None]


def pem_file(directory, name_part, content):
    """The one file of @directory with @name_part in its name and `BEGIN ...@content` in its text."""
    for path in sorted(glob.glob(directory + "/pki/*")):
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read()
        if name_part in os.path.basename(path) and "-----BEGIN" in text and content + "-----" in text:
            return path
    raise AssertionError("no %s with %s in %s/pki: %s" % (content, name_part, directory, os.listdir(directory + "/pki")))


class Join(harness.ClusterCase):
    """n4 tries to join without success; n5 is a cluster of its own whose certificates are foreign here."""

    spare = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cluster.init(5)

    def tls(self, cert_dir=None, who="admin", alpn=None):
        """A TLS 1.2 session with n1 as the holder of the certificate of @who in @cert_dir; the caller closes it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        if alpn:
            context.set_alpn_protocols([alpn])
        if cert_dir:
            context.load_cert_chain(pem_file(cert_dir, who, "CERTIFICATE"), pem_file(cert_dir, who, "PRIVATE KEY"))
        node = self.c.node(1)
        plain = socket.create_connection((node.host, node.port), timeout=5)
        try:
            return context.wrap_socket(plain)
        except OSError:
            plain.close()
            raise

    def bytes_past_handshake(self, **kwargs):
        """What the server tells after the handshake, at most a little; b"" when it tells nothing."""
        try:
            session = self.tls(**kwargs)
        except OSError:  # ssl.SSLError is one
            return b""
        with session:
            try:
                session.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return session.recv(4096)
            except OSError:
                return b""

    def assert_refused(self, done):
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertFalse(os.path.exists(self.c.node(4).dir + "/kedge.conf"))

    def test_status_is_the_same_from_every_node(self):
        for i in (1, 2, 3):
            status = self.c.wait_for(lambda i=i: self.c.is_formed(i) and self.c.status(i), 20, "n%d sees three" % i)
            self.assertEqual(sorted(n["name"] for n in status["nodes"]), ["n1", "n2", "n3"])
            self.assertIn(status["leader"], ["n1", "n2", "n3"])
            self.assertIs(status["quorum"], True)
            self.assertEqual(status["vms"], [])
            self.assertIsInstance(status["problems"], list)
            self.assertGreater(status["term"], 0)
        self.assertEqual(len({self.c.status(i)["id"] for i in (1, 2, 3)}), 1)

    def test_status_for_humans(self):
        text = self.c.kedge(2, "status", json=False)
        for word in ("n1", "n2", "n3", "quorum"):
            self.assertIn(word, text)

    def test_node_ls(self):
        rows = self.c.kedge(3, "node", "ls")["nodes"]
        self.assertEqual(sorted((r["name"], r["state"], r["role"]) for r in rows),
                         [("n%d" % i, "up", "voter") for i in (1, 2, 3)])
        text = self.c.kedge(3, "node", "ls", json=False)
        self.assertEqual(len([line for line in text.splitlines() if "voter" in line]), 3, text)

    def test_token_is_one_word(self):
        token = self.c.command(1, "token").stdout
        self.assertEqual(len(token.splitlines()), 1)
        self.assertEqual(len(token.split()), 1)
        self.assertNotIn(token.strip(), self.c.tokens)

    def test_used_token_is_refused(self):
        self.assert_refused(self.c.join(4, self.c.tokens[0], check=False))

    def test_expired_token_is_refused(self):
        token = self.c.token(1, "--expires", "1s")
        time.sleep(2.1)  # the time itself is what the case is about
        self.assert_refused(self.c.join(4, token, check=False))

    def test_changed_token_is_refused(self):
        token = self.c.token(1)
        for at in (len(token) // 2, len(token) - 2):
            letter = "a" if token[at] != "a" else "b"
            self.assert_refused(self.c.join(4, token[:at] + letter + token[at + 1:], check=False))
        self.assert_refused(self.c.join(4, "nonsense", check=False))

    def test_plain_text_gets_an_alert_at_most(self):
        for text in (b"GET / HTTP/1.0\r\n\r\n", b"\0" * 64, b"\x16\x03\x01\xff\xff" + b"A" * 512, b"\x93\x00\x01\xa4ping"):
            with socket.create_connection((self.c.node(1).host, self.c.node(1).port), timeout=10) as s:
                answer = b""
                try:
                    s.sendall(text)
                    s.shutdown(socket.SHUT_WR)
                    answer = s.recv(4096)
                except ConnectionResetError:
                    pass
            self.assertTrue(answer == b"" or (answer[0] == ALERT and len(answer) <= 7), answer)

    def test_foreign_certificate_gets_nothing(self):
        for who in ("admin", "node"):
            for alpn in PROTOCOLS:
                answer = self.bytes_past_handshake(cert_dir=self.c.node(5).dir, who=who, alpn=alpn)
                self.assertEqual(answer, b"", "%s with %s" % (who, alpn))

    def test_no_certificate_gets_nothing(self):
        for alpn in PROTOCOLS:
            answer = self.bytes_past_handshake(alpn=alpn)
            self.assertTrue(answer == b"" or (alpn == "http/1.1" and answer.startswith(b"HTTP/1.1 40")), (alpn, answer))

    def test_own_certificate_opens_the_door(self):
        """The control of the two above: the same client with the right certificate is let in."""
        with self.tls(cert_dir=self.c.node(1).dir, who="admin", alpn="kedge-ctl/1") as session:
            self.assertEqual(session.selected_alpn_protocol(), "kedge-ctl/1")
            self.assertEqual(session.version(), "TLSv1.2")

    def test_admin_certificate_is_no_node(self):
        answer = self.bytes_past_handshake(cert_dir=self.c.node(1).dir, who="admin", alpn="kedge-peer/1")
        self.assertEqual(answer, b"")

    def test_agent_that_does_not_run_is_one_clear_line(self):
        done = self.c.command(5, "status", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)

    def test_cluster_survived_all_this(self):
        self.c.wait_formed(10)


if __name__ == "__main__":
    harness.main()
