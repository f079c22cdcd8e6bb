// SPDX-License-Identifier: Apache-2.0
// Explicit-state model of the Kedge volume protocol (DESIGN section 8), with growing a volume (grow=1).
// One volume, N replicas, S sectors; sector -> block (stamp unit) -> extent (intent unit).
// The store (raft) is an atomic log of configurations; nodes see it through stale views.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cstdint>
#include <string>
#include <vector>
#include <map>
#include <algorithm>
#include <functional>
#include <ctime>
#include <unistd.h>
typedef uint8_t u8; typedef uint64_t u64; typedef uint32_t u32;
#ifndef MEV
#define MEV 18
#endif
enum {MN=3, MS=2, MB=2, ME=MEV, NONE=0xff};
enum {K_NONE=0,K_W=1,K_COPY=2};
struct Op { u8 kind,val,local,acked,tgt; };
struct Node {
  // durable
  u8 promised, active, inc, intents, idur, addmark, mbad, pinned;
  u8 dur[MS], cac[MS], sdur[MB], scac[MB];
  u8 room, roomd; // growth: size of the files as processes see it, and as it is on the disk; 0 = the old size, 1 = the larger one
  // volatile
  u8 vsz; // growth: the size in the row last seen, where it is not that of the epoch (growEpoch=0)
  u8 view, lead; Op op[MS]; u8 need[MN]; u8 conn, known; u8 flAct, flAck, flLocal, fset; u8 unfl; u8 join, jph, jinc; u8 zreq, jfs;
};
struct Res { u8 type, from, to, bal, sec, val, stamp; }; // 1 write 2 clear 3 late local write
struct St {
  u8 epoch, hprim[ME], hins[ME], hinc[ME][MN];
  u8 prAct, prEp, prX, prInc;
  u8 vm, cpend[MS], cfl, allowed[MS], fl[MS], flsnap[MS], cold;
  u8 bkBase, bk[MS], bkOn, fork, nFo, vmEp;
  u8 gEp, rep, seen; // growth: epoch of GROW or 0; the members that have reported room; the guest may have seen the larger size
  u8 nW,nF,nC,nP,nR,nB;
  Res res[2];
  Node n[MN];
};
// ---- parameters -------------------------------------------------------------------------------
static int N=2,S=1,NBk=1,NX=1; static u8 blk[MS]={0,1}, ext[MB]={0,1};
static int Wmax=2,Fmax=1,Cmax=1,Pmax=1,Rmax=1,Emax=4,Bmax=0;
// rules: 1 = as in the recommended protocol, other values = broken variants
struct Rules {
  int ackAll=1;      // 0: acknowledge before the slowest replica
  int cas=1;         // 0: removal proposed by a stale primary commits blindly; 2: leader takeover from a stale in-sync set
  int settle=1;      // 0: no settling; 2: settle for writes only, reads at once; 3: serve before all in-sync peers have shaken hands
  int promise=1;     // 0: epoch not durable
  int refuse=1;      // 0: replica accepts old ballots
  int fence=1;       // 0: intents collected without raising the replica's promise
  int drain=1;       // 0: writes accepted before a fence reach the disk after it
  int intent=1;      // 0: intent not durable before the data write (both) ; 2: primary only
  int clear=1;       // 0: clear when acked, unflushed; 2: clear after local flush only; 3: replica clears on its own flush
  int mapdur=1;      // 0: intent cleared before the map is durable
  int reissue=1;     // 0: writes in flight over a bump keep stamp and acks
  int restamp=1;     // 0: no restamp at primary start ; 2: restamp only blocks with stamp >= old active (finer)
  int base=1;        // 1 stamp>active  2 stamp>promised  3 stamp>last epoch in sync per store  4 stamp>=active  5 stamp >= last epoch in sync per store  6 as 1, but equal stamps are taken for equal data
  int incHS=1;       // 0: power-cycled replica treated as reconnect; 2: settled in place by intents, stays in sync
  int incPrim=1;     // 0: a power-cycled node acts as primary if the store says so
  int cold=1;        // 1: cold takeover only if every in-sync member reported loss; 0: eager (quorum and one in-sync replica)
  int joinsync=1;    // 0: no fsync before add; 2: fsync, then joint
  int joint=1;       // 0: propose add before requiring its acks
  int uncopied=1;    // 0: guest write to a not yet copied block goes to the joiner and counts as copied
  int needmark=1;    // 0: write completed without the joiner's ack is not marked for copy
  int session=1;     // 0: frames of an old connection are still executed after a new handshake
  int nbd=1;         // 0: request of a dropped NBD connection still executes after its re-send
  int readwait=1;    // 0: reads see writes in flight
  int restart=1;     // 0: restarted primary goes on in the same ballot without settling ; 1: minor bump ; 2: major bump by raft
  int rsintent=1;    // 0: copies are written without an intent; 2: only copies that found equal data (stamp without intent)
  int actearly=1;    // 0: active raised at the handshake, before settling
  int lateadd=1;     // 0: add proposal in flight survives the restart of its proposer
  int mapmem=1;      // 1: map survives process crash (page cache); 0: map in process memory + continuity kept (breaks with N=3 out=1 C=1) ; 2: in memory, restart breaks continuity; 3: in memory, after a restart blocks of own intent extents get stamp = promised (recommended)
  int stampcopy=1;   // 0: settle sends a block only if data differ (stamps not carried; breaks with N=3 C=1 E=3)
  int stepdrain=1;   // 0: own late local writes land after step-down
  int shrink=0;      // 1: takeover always shrinks the in-sync set to the new primary
  int coldsync=0;    // 1: settled blocks are made durable before being served after a cold takeover, and the checker demands stable reads
  int ackinc=1;      // 0: acks of a peer's earlier incarnation still count after it comes back
  int unionS=0;      // 1: the source's own intents are added to what a joiner needs
  int pin=0;         // 1: intents cleared only while every configured replica is in sync
  int fork=1;        // 0: after a forced takeover the others rejoin by map as usual; 1: full compare if last active before the fork
  int vmep=1;        // 0: the engine serves a VM placed in a later epoch than the engine's own
  int keepjoin=0;    // 1: a join survives a new epoch or minor of the same primary (need kept, phases repeated)
  int crashdrain=1;  // 0: I/O that a killed kedged had in the kernel lands after its successor has opened the files
  // growth (grow=1): sector 1 lies beyond the old size
  int growEpoch=1;   // 0: GROW leaves the epoch as it is
  int growRoom=1;    // 0: GROW does not ask whether the members in sync have room
  int growDrop=0;    // a frame beyond the replica's room: 0 refused; 1: dropped but acked
  int growAdd=1;     // 0: the store lets a joiner in that has reported no room
  int growGreet=1;   // 0: a primary greets a joiner that has reported no room
  int growStart=1;   // 0: a primary starts without room, in the size that it has room for, until it has more
  int growUse=1;     // 0: a primary uses all the room that it has, whatever its row says
  int growDur=1;     // room is reported 1 when it is durable; 0: before that, a power cut may take it; 2: so may a crash
  int growLag=0;     // 1: a report reaches the store in a step of its own (else at once: GROW and ADD may come late anyway)
  int growStamp=1;   // 0: restamping (V17, V30) does not stop at the end of the files
} R;
static bool chkA=true, chkD=true, chkE=true, chkG=true, chkM=true, useWB=true; static int grow=0;
// ---- helpers ----------------------------------------------------------------------------------
static inline int B(int s){return blk[s];} static inline int X_(int s){return ext[blk[s]];}
static u8 secsOfExt(int x){u8 m=0; for(int s=0;s<S;s++) if(X_(s)==x) m|=1<<s; return m;}
static u8 secsOfExts(u8 xs){u8 m=0; for(int s=0;s<S;s++) if(xs>>X_(s)&1) m|=1<<s; return m;}
static u8 allExt(){return (1<<NX)-1;}
static bool rowSize(const St&t,const Node&n){return t.gEp && n.view>=t.gEp && (R.growEpoch||n.view>t.gEp||n.vsz);} // by its view
static bool useSize(const St&t,const Node&n){return n.room && (rowSize(t,n)||!R.growUse);} // by a primary; a row larger than the room: growStart
static bool beyond(bool size,int s){return grow && s==1 && !size;}
static bool hasRoom(const Node&n,int s){return !R.growStamp || !beyond(n.room,s);}
static void loseRoom(Node&n){ n.room=0; n.dur[1]=n.cac[1]=0; if(B(1)!=B(0)) n.sdur[B(1)]=n.scac[B(1)]=0; if(X_(1)!=X_(0)){ n.intents&=~(1<<X_(1)); n.idur&=~(1<<X_(1)); } }
struct Act { u8 code,a,b,c,d; };
enum { A_ISSUE=1,A_REACC,A_READ,A_FLISSUE,A_REFL,A_LOCAL,A_DELIV,A_DELIVLOST,A_COMPL,A_COPY,A_FLLOC,A_FLDEL,A_FLCOMPL,A_CLR,A_CLRX,A_RESET,A_RESDEL,
  A_CRASH,A_POWER,A_LEARN,A_START,A_HS,A_REMOVE,A_ADD,A_BUMP,A_TAKE,A_COLD,A_JOINT,A_JSYNC,A_JPROP,A_JABANDON,A_WB,A_RECONN,A_ZEXEC,A_EARLY,A_BACKUP,A_BLINDRM,A_FORCE,
  A_ROOM,A_ROOMDUR,A_REPORT,A_GROW,A_SEE};
static std::string actstr(const Act&q){
  char b[200]; auto nm=[&](int i){return "ABC"[i];};
  switch(q.code){
  case A_ISSUE: sprintf(b,"guest issues W%d to sector %d (accepted by %c)",q.c,q.b,nm(q.a));break;
  case A_REACC: sprintf(b,"guest's pending write to sector %d is re-sent to %c",q.b,nm(q.a));break;
  case A_READ: sprintf(b,"guest reads sector %d at %c -> W%d",q.b,nm(q.a),q.c);break;
  case A_FLISSUE: sprintf(b,"guest issues FLUSH at %c",nm(q.a));break;
  case A_REFL: sprintf(b,"guest's FLUSH re-sent to %c",nm(q.a));break;
  case A_LOCAL: sprintf(b,"%c writes sector %d locally (intent durable, data in cache)",nm(q.a),q.b);break;
  case A_DELIV: sprintf(b,"%c->%c write/copy of sector %d applied and acked",nm(q.a),nm(q.b),q.c);break;
  case A_DELIVLOST: sprintf(b,"%c->%c write/copy of sector %d applied, ack lost, link drops",nm(q.a),nm(q.b),q.c);break;
  case A_COMPL: sprintf(b,"%c completes op on sector %d%s",nm(q.a),q.b,q.c?" -> ACK to guest":"");break;
  case A_COPY: if(q.d) sprintf(b,"%c copies sector %d to %c",nm(q.a),q.b,nm(q.c)); else sprintf(b,"%c starts copy of sector %d to its peers",nm(q.a),q.b);break;
  case A_FLLOC: sprintf(b,"%c fsyncs its data for FLUSH",nm(q.a));break;
  case A_FLDEL: sprintf(b,"%c->%c FLUSH done there",nm(q.a),nm(q.b));break;
  case A_FLCOMPL: sprintf(b,"%c completes FLUSH%s",nm(q.a),q.b?" -> ACK to guest":"");break;
  case A_CLR: sprintf(b,"%c clears own intent of extent %d",nm(q.a),q.b);break;
  case A_CLRX: sprintf(b,"%c->%c clear intent of extent %d",nm(q.a),nm(q.b),q.c);break;
  case A_RESET: sprintf(b,"link %c->%c drops%s",nm(q.a),nm(q.b),q.c==0?"":q.c==1?"; a write stays in the old connection":"; a CLEAR stays in the old connection");break;
  case A_RESDEL: sprintf(b,"late frame of an old connection %c->%c is executed (sector/extent %d)",nm(q.a),nm(q.b),q.c);break;
  case A_CRASH: sprintf(b,"kedged on %c crashes and restarts%s",nm(q.a),q.b!=NONE?"; a write of it stays in a socket":"");break;
  case A_POWER: sprintf(b,"%c loses power and restarts (cached sectors that reached the disk: mask %d)",nm(q.a),q.b);break;
  case A_LEARN: sprintf(b,"%c learns epoch %d%s",nm(q.a),q.b,q.c?" (stale)":"");break;
  case A_START: sprintf(b,"%c starts as primary, ballot %d.%d",nm(q.a),q.b/4,q.b%4);break;
  case A_HS: sprintf(b,"%c->%c handshake (need mask %d)",nm(q.a),nm(q.b),q.c);break;
  case A_REMOVE: sprintf(b,"store commits: %c removed from in-sync, epoch %d",nm(q.a),q.b);break;
  case A_ADD: sprintf(b,"store commits: %c added to in-sync, epoch %d",nm(q.a),q.b);break;
  case A_BUMP: sprintf(b,"store commits: epoch bump to %d",q.a);break;
  case A_TAKE: sprintf(b,"store commits: takeover by %c, in-sync mask %d, epoch %d (old VM is dead)",nm(q.a),q.b,q.c);break;
  case A_COLD: sprintf(b,"store commits: COLD takeover by %c, in-sync mask %d, epoch %d",nm(q.a),q.b,q.c);break;
  case A_JOINT: sprintf(b,"%c: joiner %c caught up, its acks now required",nm(q.a),nm(q.b));break;
  case A_JSYNC: sprintf(b,"%c: joiner %c %s",nm(q.a),nm(q.b),q.c?"fsyncs":"skips fsync");break;
  case A_JPROP: sprintf(b,"%c proposes adding %c",nm(q.a),nm(q.b));break;
  case A_JABANDON: sprintf(b,"%c gives up the join of %c",nm(q.a),nm(q.b));break;
  case A_WB: sprintf(b,"%c: kernel writes back sector %d",nm(q.a),q.b);break;
  case A_RECONN: sprintf(b,"guest's NBD connection to %c drops; old request stays queued there",nm(q.a));break;
  case A_ZEXEC: sprintf(b,"%c executes the old connection's request on sector %d",nm(q.a),q.b);break;
  case A_EARLY: sprintf(b,"%c ACKS the guest early on sector %d",nm(q.a),q.b);break;
  case A_BACKUP: sprintf(b,"incremental backup taken at %c",nm(q.a));break;
  case A_BLINDRM: sprintf(b,"store commits (blindly) stale %c's removal of %c, epoch %d",nm(q.a),nm(q.b),q.c);break;
  case A_FORCE: sprintf(b,"store commits: FORCED takeover (--accept-data-loss) by %c which is not in sync, epoch %d",nm(q.a),q.b);break;
  case A_ROOM: sprintf(b,"%c makes room%s",nm(q.a),q.b?" and reports it":"");break;
  case A_ROOMDUR: sprintf(b,"%c: its room is durable by now",nm(q.a));break;
  case A_REPORT: sprintf(b,"store commits: REPORT of %c, %s",nm(q.a),q.b?"room":"no room");break;
  case A_GROW: sprintf(b,"store commits: GROW, epoch %d",q.a);break;
  case A_SEE: sprintf(b,"%c sees the larger size in its row",nm(q.a));break;
  default: sprintf(b,"?%d",q.code);
  } return b; }

static const char* viol; // set by checks
static bool eager=true; static int coldLegit=0; static int bkMax=0,bkBump=1,foMax=0;
static void stepdown(St&t,int i){
  Node&m=t.n[i];
  if(!R.stepdrain && m.lead) for(int s=0;s<S;s++) if(m.op[s].kind==K_W && !m.op[s].local)
    for(auto&r:t.res) if(!r.type){ r={3,(u8)i,(u8)i,m.lead,(u8)s,m.op[s].val,m.lead}; break; }
  m.lead=0; memset(m.op,0,sizeof m.op); memset(m.need,0,sizeof m.need);
  m.conn=m.known=0; m.flAct=m.flAck=m.flLocal=m.fset=0; m.unfl=0; m.join=NONE; m.jph=0; m.jinc=0; m.zreq=0; m.jfs=0;
}
static bool incOK(const St&t,int e,int i){return t.n[i].inc==t.hinc[e][i];}
static u8 reqMask(const St&t,int p){ const Node&P=t.n[p]; u8 m=t.hins[P.view]&~(1<<p); if(P.jph>=2) m|=1<<P.join; return m; }
static void dropConn(St&t,int p,int x){ Node&P=t.n[p]; P.conn&=~(1<<x);
  for(int s=0;s<S;s++) if(P.op[s].kind==K_COPY && (P.op[s].tgt>>x&1) && !(P.op[s].acked>>x&1)){ P.op[s].tgt&=~(1<<x); if(!(P.op[s].tgt&~P.op[s].acked)) { /* finish for others */
        for(int y=0;y<N;y++) if(P.op[s].tgt>>y&1) P.need[y]&=~(1<<s);
        memset(&P.op[s],0,sizeof(Op)); } } }
static bool servable(const St&t,int p,int s,bool read){
  const Node&P=t.n[p]; if(!P.lead||P.view!=P.lead/4||beyond(useSize(t,P),s)) return false;
  u8 ins=t.hins[P.view]&~(1<<p);
  if(R.settle==3 || (R.settle==2&&read)) return true;
  if(ins & ~P.known) return false;
  for(int x=0;x<N;x++) if((ins>>x&1) && (P.need[x]>>s&1)) return false;
  return true;
}
static void setActive(St&t,int p,int x){ Node&P=t.n[p]; if((t.hins[P.view]>>x&1) && P.need[x]==0 && (P.conn>>x&1)) t.n[x].active=P.lead; }
static void rebump(St&t,int p){ // continuing primary enters the epoch it has learned
  Node&P=t.n[p]; u8 b=P.view*4; P.lead=b; P.promised=b; P.active=b; if(R.pin==2) P.pinned|=P.intents; P.conn=0; P.flAck=0;
  u8 ins=t.hins[P.view];
  bool keep=R.keepjoin && P.join!=NONE && !(ins>>P.join&1) && (P.known>>P.join&1) && t.n[P.join].inc==P.jinc;
  if(keep){ P.jph=1; P.jfs=0; } // same primary, same joiner: what it needs is still known; joint and fsync are repeated
  else if(P.join!=NONE){ if(ins>>P.join&1){ P.join=NONE;P.jph=0; } else { P.known&=~(1<<P.join); P.need[P.join]=0; P.join=NONE;P.jph=0; } P.jinc=0; }
  if(P.addmark && P.addmark<P.view) P.addmark=0;
  for(int x=0;x<N;x++) if(x!=p && !(ins>>x&1) && !(keep&&x==P.join)){ P.known&=~(1<<x); P.need[x]=0; }
  for(int s=0;s<S;s++){ Op&o=P.op[s];
    if(o.kind==K_COPY) memset(&o,0,sizeof o);
    else if(o.kind==K_W && R.reissue){ o.acked=0; if(o.local) P.scac[B(s)]=b; } }
}
static void readEffect(St&t,int s,u8 r,bool noNarrow=false){
  u8 bit=1<<r; if(!(t.allowed[s]&bit)){ viol=(t.fl[s]&bit)?"READ returns a value that is not allowed (acknowledged or once read data is gone)":"READ: data covered by a FLUSH is gone"; return; }
  u8 pend=t.cpend[s]?(1<<t.cpend[s]):0;
  if(pend && r!=t.cpend[s]) t.allowed[s]=bit|pend; else t.allowed[s]=bit;
  if(R.coldsync && t.cold>>s&1) { t.fl[s]=t.allowed[s]; if(t.cfl) t.flsnap[s]&=t.allowed[s]; }
}
static void checks(const St&t){
  int e=t.epoch,p=t.hprim[e]; u8 ins=t.hins[e];
  if(chkA) for(int x=0;x<N;x++) if(ins>>x&1) for(int s=0;s<S;s++){
    if(!(t.fl[s]>>t.n[x].dur[s]&1)) {viol="A: a member of the in-sync set lacks FLUSH-covered data on disk";return;}
    if(!(t.fl[s]>>t.n[x].cac[s]&1)) {viol="A: a member of the in-sync set shows data older than a FLUSH";return;} }
  const Node&P=t.n[p];
  if(chkM && t.gEp) for(int x=0;x<N;x++) if((ins>>x&1) && !t.n[x].room && !(t.nFo && ins==1<<x)) { viol="M: a member of the in-sync set has no room for the volume's size"; return; }
  if(chkG && t.seen && P.lead && P.lead/4==e && incOK(t,e,p) && !useSize(t,P)) { viol="G: the guest may have seen the larger size, and its volume is served in the smaller one"; return; }
  if(chkD && P.lead && P.lead/4==e && incOK(t,e,p)) for(int x=0;x<N;x++) if(x!=p && (ins>>x&1) && incOK(t,e,x) && (P.known>>x&1))
    for(int s=0;s<S;s++) if(P.op[s].kind==K_NONE && !beyond(useSize(t,P),s) && !(P.need[x]>>s&1) && P.cac[s]!=t.n[x].cac[s]) { viol="D: in-sync replicas differ in a settled, idle block"; return; }
}
// ---- successor generation ----------------------------------------------------------------------
typedef std::function<void(const St&,const Act&)> Emit;
static void finishW(St&t,int p,int s,bool&acked){
  Node&P=t.n[p]; Op o=P.op[s]; acked=false;
  if(t.vm==p && (!R.vmep||P.lead/4>=t.vmEp) && t.cpend[s] && t.cpend[s]==o.val){ t.cpend[s]=0; t.allowed[s]=1<<o.val; acked=true; }
  if(P.join!=NONE && P.jph<2 && R.needmark && !(o.acked>>P.join&1) && (P.known>>P.join&1)) P.need[P.join]|=1<<s;
  memset(&P.op[s],0,sizeof(Op));
}
static void acceptW(St&t,int p,int s,u8 v){ Node&P=t.n[p]; memset(&P.op[s],0,sizeof(Op)); P.op[s].kind=K_W; P.op[s].val=v; }
static void applyData(Node&X,int s,u8 v,u8 st,bool isPrimary,bool copy){
  if(beyond(X.room,s)) return; // dropped
  bool setI = !(copy && (!R.rsintent || (R.rsintent==2 && X.cac[s]==v)));
  X.cac[s]=v; X.scac[B(s)]=st;
  if(setI){ X.intents|=1<<X_(s); if(R.intent==1 || (R.intent==2&&!isPrimary)) X.idur|=1<<X_(s); }
}
static void newStart(St&t,int i,u8 b){
  Node&n=t.n[i]; u8 oldact=n.active; stepdown(t,i); n.lead=b; n.promised=b; n.unfl=allExt(); if(R.pin==2) n.pinned|=n.intents;
  if(R.restamp) for(int s=0;s<S;s++) if((n.intents>>X_(s)&1) && hasRoom(n,s)) if(R.restamp==1 || n.scac[B(s)]>=oldact || (R.restamp==3&&n.mbad)) n.scac[B(s)]=b;
  n.active=b; n.mbad=0;
  if(n.addmark && n.addmark<n.view) n.addmark=0;
}
static bool tryStart(St&t,int p,u8&b){
  Node&P=t.n[p]; if(P.lead||!P.view||t.hprim[P.view]!=p||(R.incPrim&&!incOK(t,P.view,p))||(R.growStart&&rowSize(t,P)&&!P.room)) return false;
  int v=P.view; b=0;
  if(P.promised/4<v) b=v*4; else if(P.promised/4==v){ if(R.restart==1 && P.promised%4<3 && !(R.lateadd && P.addmark==v)) b=P.promised+1; if(R.restart==0) b=P.promised; }
  if(!b) return false;
  if(R.restart==0 && P.promised==b && P.active==b){ stepdown(t,p); P.lead=b; P.unfl=allExt(); P.known=t.hins[v]&~(1<<p); }
  else newStart(t,p,b);
  return true; }
static void seeSize(St&t){ // the guest is told the larger size as soon as its engine leads with it
  const Node&P=t.n[t.vm]; if(grow && P.lead && P.view==P.lead/4 && (!R.vmep||P.lead/4>=t.vmEp) && useSize(t,P)) t.seen=1; }
static void succ(const St&t0,const Emit&emit){
  const int E=t0.epoch; St t;
  auto go=[&](Act a){
    if(eager && (a.code==A_LOCAL||a.code==A_DELIV||a.code==A_FLDEL||a.code==A_FLISSUE||a.code==A_REFL||a.code==A_LEARN)){ int p=a.a; Node&P=t.n[p];
      if(a.code==A_FLISSUE||a.code==A_REFL){ memcpy(P.dur,P.cac,MS); P.flLocal=1; }
      if(a.code==A_LEARN){ if(!P.lead && P.flAct==0){ u8 b=0; tryStart(t,p,b); } }
      bool actg=P.lead && P.view==P.lead/4;
      if(actg) for(int s=0;s<S;s++){ Op&o=P.op[s]; if(o.kind==K_W&&o.local&&!(reqMask(t,p)&~o.acked)){ bool ak; finishW(t,p,s,ak); a.d|=ak?1:2; } }
      if(actg && P.flAct && P.flLocal && !(reqMask(t,p)&~P.flAck)) { P.unfl&=~P.fset; P.flAct=P.flAck=P.flLocal=P.fset=0; if(t.vm==p&&t.cfl&&(!R.vmep||P.lead/4>=t.vmEp)){ a.d|=4; t.cfl=0; for(int s=0;s<S;s++) t.fl[s]=t.flsnap[s]; memset(t.flsnap,0,MS);} }
    }
    seeSize(t); emit(t,a); };
  for(int p=0;p<N;p++){ const Node&P=t0.n[p];
    bool actg=P.lead && P.view==P.lead/4;
    bool vmhere=t0.vm==p && (!R.vmep||P.lead/4>=t0.vmEp);
    // --- guest
    if(vmhere && actg){
      for(int s=0;s<S;s++){
        bool sw=servable(t0,p,s,false), sr=servable(t0,p,s,true);
        if(sw && P.op[s].kind==K_NONE){
          if(!t0.cpend[s] && t0.nW<Wmax){ t=t0; u8 v=++t.nW; t.cpend[s]=v; t.allowed[s]|=1<<v; t.fl[s]|=1<<v; if(t.cfl) t.flsnap[s]|=1<<v; t.cold&=~(1<<s); acceptW(t,p,s,v); go({A_ISSUE,(u8)p,(u8)s,v}); }
          if(t0.cpend[s]){ t=t0; acceptW(t,p,s,t.cpend[s]); go({A_REACC,(u8)p,(u8)s}); }
        }
        if(sr && (P.op[s].kind!=K_W || !R.readwait)){
          u8 r=P.cac[s]; u8 bit=1<<r;
          u8 pend=t0.cpend[s]?(1<<t0.cpend[s]):0; u8 na=(pend&&r!=t0.cpend[s])?(bit|pend):bit;
          if(!(t0.allowed[s]&bit) || na!=t0.allowed[s] || (R.coldsync&&(t0.cold>>s&1)&&t0.fl[s]!=na)){
            t=t0; viol=nullptr; 
            bool can=true; if(R.coldsync==1 && (t0.cold>>s&1)){ // rule: settled blocks durable on all in-sync before served after a cold start
               for(int x=0;x<N;x++) if((t0.hins[P.view]>>x&1) && t0.n[x].dur[s]!=t0.n[x].cac[s]) can=false; }
            if(can){ readEffect(t,s,r); go({A_READ,(u8)p,(u8)s,r}); viol=nullptr; }
          }
        }
        if(!R.nbd && P.op[s].kind==K_NONE && !P.zreq && t0.cpend[s]==0 && false){}
      }
      if(!t0.cfl && t0.nF<Fmax){ t=t0; t.nF++; t.cfl=1; for(int s=0;s<S;s++) t.flsnap[s]=t.allowed[s]; 
        Node&Q=t.n[p]; Q.flAct=1;Q.flAck=0;Q.flLocal=0;Q.fset=0; goto fset1; 
        fset1: { u8 ins=t.hins[Q.view]&~(1<<p); if(!(ins&~Q.known)) for(int x=0;x<NX;x++){ u8 m=secsOfExt(x); bool ok=true; for(int s=0;s<S;s++) if(m>>s&1){ if(Q.op[s].kind) ok=false; for(int y=0;y<N;y++) if((ins>>y&1)&&(Q.need[y]>>s&1)) ok=false; } if(ok) Q.fset|=1<<x; } }
        go({A_FLISSUE,(u8)p}); }
      if(t0.cfl && !P.flAct){ t=t0; Node&Q=t.n[p]; Q.flAct=1;Q.flAck=0;Q.flLocal=0;Q.fset=0;
        { u8 ins=t.hins[Q.view]&~(1<<p); if(!(ins&~Q.known)) for(int x=0;x<NX;x++){ u8 m=secsOfExt(x); bool ok=true; for(int s=0;s<S;s++) if(m>>s&1){ if(Q.op[s].kind) ok=false; for(int y=0;y<N;y++) if((ins>>y&1)&&(Q.need[y]>>s&1)) ok=false; } if(ok) Q.fset|=1<<x; } }
        go({A_REFL,(u8)p}); }
      // NBD connection drop with the request still queued inside the server (variant)
      if(!R.nbd && !P.zreq) for(int s=0;s<S;s++) if(t0.cpend[s] && t0.nR<Rmax && P.op[s].kind==K_NONE){ t=t0; t.nR++; t.n[p].zreq=(t.cpend[s]<<2)|(s<<1)|1; go({A_RECONN,(u8)p}); }
      if(P.zreq){ int s=P.zreq>>1&1; if(P.op[s].kind==K_NONE && servable(t0,p,s,false)){ t=t0; acceptW(t,p,s,P.zreq>>2); t.n[p].zreq=0; go({A_ZEXEC,(u8)p,(u8)s}); } }
    }
    // --- ops
    if(P.lead) for(int s=0;s<S;s++){ const Op&o=P.op[s];
      if(o.kind==K_W && !o.local){ t=t0; Node&Q=t.n[p]; applyData(Q,s,o.val,Q.lead,true,false); Q.op[s].local=1; Q.unfl|=1<<X_(s); Q.fset&=~(1<<X_(s)); go({A_LOCAL,(u8)p,(u8)s}); }
      if(o.kind) for(int x=0;x<N;x++) if(x!=p && (P.conn>>x&1) && !(o.acked>>x&1)){
        bool tgt; bool needb=P.need[x]>>s&1;
        if(o.kind==K_COPY) tgt=o.tgt>>x&1; else tgt=((reqMask(t0,p)>>x&1) || P.join==x) && (!needb || !R.uncopied);
        if(!tgt) continue;
        if(R.refuse && P.lead<t0.n[x].promised) continue; // refused (nack)
        if(beyond(t0.n[x].room,s) && !R.growDrop) continue; // refused
        t=t0; Node&Q=t.n[p]; Node&Xn=t.n[x];
        u8 st=o.kind==K_COPY?Q.scac[B(s)]:Q.lead;
        if(o.kind==K_COPY && !R.stampcopy && Xn.cac[s]==o.val) st=Xn.scac[B(s)];
        applyData(Xn,s,o.val,st,false,o.kind==K_COPY); if(R.coldsync==1&&o.kind==K_COPY&&(t.cold>>s&1)) Xn.dur[s]=Xn.cac[s];
        if(o.kind==K_W && needb && !R.uncopied) for(int z=0;z<S;z++) if(B(z)==B(s)) Q.need[x]&=~(1<<z);
        Q.unfl|=1<<X_(s); Q.fset&=~(1<<X_(s));
        St t2=t;
        Q.op[s].acked|=1<<x;
        if(o.kind==K_COPY && !(Q.op[s].tgt&~Q.op[s].acked)){ for(int y=0;y<N;y++) if(Q.op[s].tgt>>y&1) Q.need[y]&=~(1<<s); u8 tg=Q.op[s].tgt; memset(&Q.op[s],0,sizeof(Op)); for(int y=0;y<N;y++) if(tg>>y&1) setActive(t,p,y); }
        go({A_DELIV,(u8)p,(u8)x,(u8)s});
        if(t0.nR<Rmax){ t=t2; t.nR++; dropConn(t,p,x); go({A_DELIVLOST,(u8)p,(u8)x,(u8)s}); }
      }
      if(o.kind==K_W && o.local && !(reqMask(t0,p)&~o.acked) && actg){ t=t0; bool a; finishW(t,p,s,a); go({A_COMPL,(u8)p,(u8)s,(u8)a}); }
      if(!R.ackAll && o.kind==K_W && o.local && vmhere && t0.cpend[s]==o.val){ t=t0; t.cpend[s]=0; t.allowed[s]=1<<o.val; go({A_EARLY,(u8)p,(u8)s}); }
      if(o.kind==K_NONE && actg){ u8 tg=0; for(int x=0;x<N;x++) if((P.conn>>x&1)&&(P.need[x]>>s&1)&&(R.growDrop||!beyond(t0.n[x].room,s))) tg|=1<<x;
        if(tg && eager && t0.nR>=Rmax){ for(int x=0;x<N;x++) if((tg>>x&1)&&(!R.refuse||P.lead>=t0.n[x].promised)){ t=t0; Node&Q=t.n[p]; Node&Xn=t.n[x]; u8 st=Q.scac[B(s)]; if(!R.stampcopy&&Xn.cac[s]==P.cac[s]) st=Xn.scac[B(s)]; applyData(Xn,s,P.cac[s],st,false,true); if(R.coldsync==1&&(t.cold>>s&1)) Xn.dur[s]=Xn.cac[s]; Q.unfl|=1<<X_(s); Q.fset&=~(1<<X_(s)); Q.need[x]&=~(1<<s); setActive(t,p,x); emit(t,{A_COPY,(u8)p,(u8)s,(u8)x,1}); } }
        else if(tg){ t=t0; Op&q=t.n[p].op[s]; q.kind=K_COPY; q.val=P.cac[s]; q.local=1; q.acked=0; q.tgt=tg; go({A_COPY,(u8)p,(u8)s}); } }
    }
    // --- flush
    if(P.lead && P.flAct){
      if(!P.flLocal){ t=t0; Node&Q=t.n[p]; memcpy(Q.dur,Q.cac,MS); Q.flLocal=1; if(R.clear==2||R.clear==3) {} go({A_FLLOC,(u8)p}); }
      for(int x=0;x<N;x++) if((reqMask(t0,p)>>x&1)&&(P.conn>>x&1)&&!(P.flAck>>x&1)&&(!R.refuse||P.lead>=t0.n[x].promised)){ t=t0; Node&Xn=t.n[x]; memcpy(Xn.dur,Xn.cac,MS); t.n[p].flAck|=1<<x; go({A_FLDEL,(u8)p,(u8)x}); }
      if(actg && P.flLocal && !(reqMask(t0,p)&~P.flAck)){ t=t0; Node&Q=t.n[p]; Q.unfl&=~Q.fset; Q.flAct=Q.flAck=Q.flLocal=Q.fset=0; bool a=false; if(vmhere&&t.cfl){ a=true; t.cfl=0; for(int s=0;s<S;s++){ t.fl[s]=t.flsnap[s]; } memset(t.flsnap,0,MS); } go({A_FLCOMPL,(u8)p,(u8)a}); }
    }
    // --- clearing intents
    if(actg) for(int x=0;x<NX;x++){
      u8 m=secsOfExt(x); u8 ins=t0.hins[P.view]&~(1<<p); bool idle=true,settled=!(ins&~P.known);
      for(int s=0;s<S;s++) if(m>>s&1){ if(P.op[s].kind) idle=false; for(int y=0;y<N;y++) if((ins>>y&1)&&(P.need[y]>>s&1)) settled=false; }
      bool durOK=!(P.unfl>>x&1);
      if(R.pin==1 && t0.hins[P.view]!=(1<<N)-1) settled=false;
      bool okP = idle&&settled&&durOK;
      if(R.clear==0) okP=idle&&settled;                                   // acked, not flushed
      if(R.clear==2){ bool locdur=true; for(int s=0;s<S;s++) if(m>>s&1) if(P.dur[s]!=P.cac[s]) locdur=false; okP=locdur; } // local flush only
      auto clr=[&](Node&Q){ if(R.mapdur) for(int s=0;s<S;s++) if(m>>s&1) Q.sdur[B(s)]=Q.scac[B(s)]; Q.intents&=~(1<<x); Q.idur&=~(1<<x); if(t0.hins[P.view]==(1<<N)-1) Q.pinned&=~(1<<x); };
      if(okP && ((P.intents|P.pinned)>>x&1)){ t=t0; clr(t.n[p]); go({A_CLR,(u8)p,(u8)x}); }
      bool okX = idle&&settled&&durOK; if(R.clear==0) okX=idle&&settled;
      for(int y=0;y<N;y++) if((ins>>y&1)&&(P.conn>>y&1)&&((t0.n[y].intents|t0.n[y].pinned)>>x&1)){
        bool ok=okX; if(R.clear==3){ bool ld=true; for(int s=0;s<S;s++) if(m>>s&1) if(t0.n[y].dur[s]!=t0.n[y].cac[s]) ld=false; ok=ld; }
        if(ok && (!R.refuse||P.lead>=t0.n[y].promised)){ t=t0; clr(t.n[y]); go({A_CLRX,(u8)p,(u8)y,(u8)x}); } }
    }
    // --- snapshot: quiesced, minor bump, incremental backup of blocks stamped after the last snapshot
    if(bkMax && actg && t0.nB<bkMax && P.view==E && t0.hprim[E]==p && incOK(t0,E,p) && P.lead%4<3){
      u8 ins=t0.hins[E]&~(1<<p); bool ok=!(ins&~P.known)&&P.jph<2; for(int s=0;s<S;s++){ if(P.op[s].kind) ok=false; for(int y=0;y<N;y++) if((ins>>y&1)&&(P.need[y]>>s&1)) ok=false; }
      if(ok){ t=t0; t.nB++; Node&Q=t.n[p]; for(int s=0;s<S;s++) if(!t.bkOn || Q.scac[B(s)]>t.bkBase) t.bk[s]=Q.cac[s];
        t.bkOn=1; t.bkBase=Q.lead; viol=nullptr; for(int s=0;s<S;s++) if(t.bk[s]!=Q.cac[s]) viol="K: incremental backup misses a changed block";
        u8 b=Q.lead+1; if(bkBump){ Q.lead=Q.promised=Q.active=b; Q.conn=0; Q.flAck=0; if(Q.join!=NONE && !R.keepjoin){ Q.known&=~(1<<Q.join); Q.need[Q.join]=0; Q.join=NONE;Q.jph=0;Q.jinc=0;Q.jfs=0; } }
        go({A_BACKUP,(u8)p}); viol=nullptr; } }
    // --- link drop
    if(P.lead && t0.nR<Rmax) for(int x=0;x<N;x++) if(P.conn>>x&1){
      t=t0; t.nR++; dropConn(t,p,x); go({A_RESET,(u8)p,(u8)x,0});
      int slot=-1; for(int k=0;k<2;k++) if(!t0.res[k].type){slot=k;break;}
      if(slot>=0) for(int s=0;s<S;s++){ const Op&o=P.op[s]; if(o.kind && !(o.acked>>x&1)){ bool needb=P.need[x]>>s&1; bool tgt=o.kind==K_COPY?(o.tgt>>x&1):(((reqMask(t0,p)>>x&1)||P.join==x)&&!needb); if(!tgt) continue;
        t=t0; t.nR++; t.res[slot]={1,(u8)p,(u8)x,P.lead,(u8)s,o.val,o.kind==K_COPY?P.scac[B(s)]:P.lead}; dropConn(t,p,x); go({A_RESET,(u8)p,(u8)x,1}); } }
      if(slot>=0 && actg) for(int e=0;e<NX;e++){ u8 m=secsOfExt(e); u8 ins=t0.hins[P.view]&~(1<<p); bool ok=!(ins&~P.known)&&(ins>>x&1)&&!(P.unfl>>e&1)&&(t0.n[x].intents>>e&1); for(int s=0;s<S;s++) if(m>>s&1){ if(P.op[s].kind) ok=false; for(int y=0;y<N;y++) if((ins>>y&1)&&(P.need[y]>>s&1)) ok=false; }
        if(ok){ t=t0; t.nR++; t.res[slot]={2,(u8)p,(u8)x,P.lead,(u8)e,(u8)(t0.hins[P.view]==(1<<N)-1),0}; dropConn(t,p,x); go({A_RESET,(u8)p,(u8)x,2}); } }
    }
    // --- joining
    if(actg && P.join!=NONE){ int x=P.join; bool same=t0.n[x].inc==P.jinc;
      if(P.jph==1 && (P.conn>>x&1) && (P.known>>x&1) && P.need[x]==0 && same){
        if(R.joint){
          if(R.joinsync==2){ t=t0; memcpy(t.n[x].dur,t.n[x].cac,MS); t.n[p].jph=3; /* fsync happened before becoming joint: model as two steps */
            // step 1: fsync now, joint later (marked by jph=1,jinc|0x80)
            t=t0; if(!P.jfs) { memcpy(t.n[x].dur,t.n[x].cac,MS); t.n[p].jfs=1; go({A_JSYNC,(u8)p,(u8)x,1}); }
            if(P.jfs){ t=t0; t.n[p].jfs=0; t.n[p].jph=3; go({A_JOINT,(u8)p,(u8)x}); }
          } else { t=t0; t.n[p].jph=2; go({A_JOINT,(u8)p,(u8)x}); }
        } else { // no joint phase: fsync then propose, acks not required
          t=t0; memcpy(t.n[x].dur,t.n[x].cac,MS); if(!t.prAct||t.prEp<E||t.prX!=x){ t.prAct=1;t.prEp=P.view;t.prX=x;t.prInc=P.jinc; go({A_JPROP,(u8)p,(u8)x}); }
        } }
      if(P.jph==2 && (P.conn>>x&1) && same){ bool all=true; // writes in flight need not be waited for: their acks are required anyway
        if(all){ t=t0; if(R.joinsync) memcpy(t.n[x].dur,t.n[x].cac,MS); t.n[p].jph=3; go({A_JSYNC,(u8)p,(u8)x,(u8)(R.joinsync!=0)}); } }
      if((P.jph==3||(P.jph==4&&!(t0.prAct&&t0.prEp==P.view))) && same && P.view==E){ t=t0; t.prAct=1;t.prEp=P.view;t.prX=x;t.prInc=P.jinc; t.n[p].jph=4; t.n[x].mbad=0; t.n[p].addmark=P.view; go({A_JPROP,(u8)p,(u8)x}); }
      if(P.jph<4 && t0.nR<Rmax){ t=t0; t.nR++; Node&Q=t.n[p]; dropConn(t,p,x); Q.known&=~(1<<x); Q.need[x]=0; Q.join=NONE; Q.jph=0; Q.jinc=0; Q.jfs=0; go({A_JABANDON,(u8)p,(u8)x}); }
    }
    // --- handshakes
    if(actg) for(int x=0;x<N;x++) if(x!=p && !(P.conn>>x&1)){
      const Node&X0=t0.n[x]; bool inS=t0.hins[P.view]>>x&1;
      if(P.lead<X0.promised && R.refuse) continue;
      if(X0.lead && X0.lead>=P.lead) continue;
      if(inS && R.incHS==1 && !incOK(t0,P.view,x)) continue;
      if(!inS && grow && R.growGreet && useSize(t0,P) && !(t0.rep>>x&1)) continue;
      if(!inS){ if(P.join!=NONE && P.join!=x) continue; if(P.join==x && P.jinc!=X0.inc && P.jph>=2) continue; }
      t=t0; Node&Q=t.n[p]; Node&Xn=t.n[x];
      if(R.fence){ if(Xn.lead) stepdown(t,x); if(P.lead>Xn.promised){ Xn.promised=P.lead; if(R.pin==2) Xn.pinned|=Xn.intents; } }
      if(R.session) for(auto&r:t.res) if(r.type&&r.type!=3&&r.from==p&&r.to==x) memset(&r,0,sizeof r);
      bool kn=Q.known>>x&1; if(inS && R.incHS==2 && !incOK(t0,P.view,x)) kn=false;
      if(!kn){
        u8 nd=0;
        if(inS){ if(R.settle!=0) nd=secsOfExts(Q.intents|Xn.intents); }
        else { for(int s=0;s<S;s++){ bool f=false; u8 st=Q.scac[B(s)];
            if(R.base==1) f=st>Xn.active; if(R.base==2) f=st>Xn.promised; if(R.base==4) f=st>=Xn.active;
            if(R.base==3||R.base==5){ int le=0; for(int e=1;e<=P.view;e++) if(t.hins[e]>>x&1) le=e; f=R.base==3? st>le*4+3 : st>=le*4; }
            if(R.base==6 && st>Xn.active && Xn.scac[B(s)]==st) continue;
            if(R.base==6) f=st>Xn.active;
            if(f||(Xn.intents>>X_(s)&1)) nd|=1<<s; }
          if(R.fork && t.fork && Xn.active/4<t.fork) nd=(1<<S)-1; if(R.unionS) nd|=secsOfExts(Q.intents); if(R.pin==2) nd|=secsOfExts(Q.pinned);
          if(!(Q.join==x&&Q.jph>=2)){ Q.join=x;Q.jph=1;Q.jinc=Xn.inc; } }
        if(!R.stampcopy) { /* only differing data */ }
        if(grow && !useSize(t,Q)) nd&=1;
        Q.need[x]=nd; Q.known|=1<<x;
        if(R.ackinc) for(int s=0;s<S;s++){ Q.op[s].acked&=~(1<<x); if(Q.op[s].kind==K_COPY){ Q.op[s].tgt&=~(1<<x); if(!Q.op[s].tgt) memset(&Q.op[s],0,sizeof(Op)); } }
      }
      Q.conn|=1<<x; setActive(t,p,x); if(!R.actearly && inS) Xn.active=Q.lead;
      viol=nullptr;
      if(chkE) for(int s=0;s<S;s++) if(Q.op[s].kind!=K_W && !beyond(useSize(t,Q),s) && !(Q.need[x]>>s&1) && Q.cac[s]!=Xn.cac[s]) viol=inS?"E: settling misses a differing block":"E: resync misses a differing block";
      go({A_HS,(u8)p,(u8)x,Q.need[x]}); viol=nullptr;
    }
    // --- learn
    if(P.view!=E){
      for(int k=0;k<2;k++){ int v=k==0?E:(P.promised/4); if(k==1&&(P.view!=0||v==0||v>=E)) continue;
        t=t0; Node&Q=t.n[p]; int ov=Q.view; Q.view=v; Q.vsz=0;
        if(Q.lead){ bool cont=true; for(int e=Q.lead/4;e<=v;e++) if(t.hprim[e]!=p) cont=false; if(R.incPrim && !incOK(t,v,p)) cont=false; if(R.growStart && rowSize(t,Q) && !Q.room) cont=false; (void)ov;
          if(cont) rebump(t,p); else stepdown(t,p); }
        go({A_LEARN,(u8)p,(u8)v,(u8)(k)}); } }
    // --- growth: room, its reports, and (only if GROW leaves the epoch as it is) a newer row of the same epoch
    if(grow && !P.room){ t=t0; t.n[p].room=1; t.n[p].roomd=R.growDur==1; if(!R.growLag) t.rep|=1<<p; go({A_ROOM,(u8)p,(u8)!R.growLag}); }
    if(P.room && !P.roomd){ t=t0; t.n[p].roomd=1; go({A_ROOMDUR,(u8)p}); }
    if(grow && (t0.rep>>p&1)!=P.room){ t=t0; t.rep^=1<<p; go({A_REPORT,(u8)p,P.room}); }
    if(!R.growEpoch && t0.gEp && P.view==t0.gEp && !P.vsz){ t=t0; t.n[p].vsz=1; go({A_SEE,(u8)p}); }
    // --- start as primary
    { t=t0; u8 b=0; if(tryStart(t,p,b)) go({A_START,(u8)p,b}); }
    // --- bump by the primary's node (restart mode 2, abort of an add, snapshot)
    if(P.view==E && t0.hprim[E]==p && E<Emax && incOK(t0,E,p) && ((P.lead==0 && P.promised/4==E && (R.restart==2 || P.addmark==E || P.promised%4==3)) || (P.lead && P.jph==4 && t0.n[P.join].inc!=P.jinc))){
      t=t0; int e=++t.epoch; t.hprim[e]=t.hprim[E]; t.hins[e]=t.hins[E]; memcpy(t.hinc[e],t.hinc[E],MN); go({A_BUMP,(u8)e}); }
    // --- write-back of a cached value about to be overwritten
    if(useWB) for(int s=0;s<S;s++) if(P.cac[s]!=P.dur[s]){ bool f=false; for(int q=0;q<N;q++) if(t0.n[q].op[s].kind && t0.n[q].op[s].val!=P.cac[s]) f=true; for(auto&r:t0.res) if(r.type==1&&r.sec==s) f=true; if(f){ t=t0; t.n[p].dur[s]=P.cac[s]; go({A_WB,(u8)p,(u8)s}); } }
    // --- crash of kedged
    if(t0.nC<Cmax){
      auto base=[&](){ t=t0; t.nC++; for(int q=0;q<N;q++) if(q!=p){ dropConn(t,q,p); Node&Q=t.n[q]; if(R.mapmem==2){ Q.known&=~(1<<p); if(Q.join==p&&Q.jph<4){Q.need[p]=0;Q.join=NONE;Q.jph=0;Q.jinc=0;} } }
        for(auto&r:t.res) if(r.type&&r.to==p) memset(&r,0,sizeof r);
        if(!R.crashdrain){ // one write of the dead process is still in the kernel, here or as a replica
          auto late=[&](int q,int s){ for(auto&r:t.res) if(!r.type){ r={3,(u8)p,(u8)p,t0.n[q].lead,(u8)s,t0.n[q].op[s].val,t0.n[q].lead}; return; } };
          for(int q=0;q<N;q++) if(t0.n[q].lead) for(int s=0;s<S;s++) if(t0.n[q].op[s].kind==K_W && (q==p? !t0.n[q].op[s].local : ((t0.n[q].conn>>p&1) && !(t0.n[q].op[s].acked>>p&1)))) late(q,s); }
        stepdown(t,p); t.n[p].view=t.n[p].vsz=0; if(R.growDur==2 && P.room>P.roomd) loseRoom(t.n[p]);
        if(R.mapmem!=1){ memcpy(t.n[p].scac,t.n[p].sdur,MB); if(R.mapmem==3) for(int s=0;s<S;s++) if((t.n[p].intents>>X_(s)&1) && hasRoom(t.n[p],s)) t.n[p].scac[B(s)]=t.n[p].promised; } if(!R.promise) t.n[p].promised=4; };
      base(); go({A_CRASH,(u8)p,NONE});
      if(P.lead && t0.nR<Rmax) for(int x=0;x<N;x++) if(P.conn>>x&1) for(int s=0;s<S;s++){ const Op&o=P.op[s]; if(!o.kind||(o.acked>>x&1)) continue; bool needb=P.need[x]>>s&1; bool tgt=o.kind==K_COPY?(o.tgt>>x&1):(((reqMask(t0,p)>>x&1)||P.join==x)&&!needb); if(!tgt) continue;
        base(); t.nR++; int slot=-1; for(int k=0;k<2;k++) if(!t.res[k].type){slot=k;break;} if(slot<0) continue;
        t.res[slot]={1,(u8)p,(u8)x,P.lead,(u8)s,o.val,o.kind==K_COPY?P.scac[B(s)]:P.lead}; go({A_CRASH,(u8)p,(u8)x}); }
    }
    // --- power loss
    if(t0.nP<Pmax){ u8 diff=0; for(int s=0;s<S;s++) if(P.cac[s]!=P.dur[s]) diff|=1<<s;
      for(u8 m=0;m<(1<<S);m++) if(!(m&~diff)){ t=t0; t.nP++; Node&Q=t.n[p];
        for(int s=0;s<S;s++){ if(m>>s&1) Q.dur[s]=Q.cac[s]; else Q.cac[s]=Q.dur[s]; }
        memcpy(Q.scac,Q.sdur,MB); Q.intents=Q.idur; if(P.room>P.roomd) loseRoom(Q);
        if(R.mapmem==3) for(int s=0;s<S;s++) if((Q.intents>>X_(s)&1) && hasRoom(Q,s)) Q.scac[B(s)]=Q.promised; Q.inc=2; if(R.restamp==3) Q.mbad=1; if(!R.promise) Q.promised=4;
        for(int q=0;q<N;q++) if(q!=p){ Node&O=t.n[q]; dropConn(t,q,p); if(O.lead && !(t.hins[O.view]>>p&1)){ if(O.join==p&&O.jph<4){ O.known&=~(1<<p); O.need[p]=0; O.join=NONE;O.jph=0;O.jinc=0; O.jfs=0; } } }
        for(auto&r:t.res) if(r.type&&r.to==p) memset(&r,0,sizeof r);
        stepdown(t,p); Q.view=Q.vsz=0;
        if(t.vm==p){ memset(t.cpend,0,MS); t.cfl=0; memset(t.flsnap,0,MS); }
        go({A_POWER,(u8)p,m}); } }
  }
  // --- late frames
  for(int k=0;k<2;k++) if(t0.res[k].type){ const Res&r=t0.res[k]; const Node&X0=t0.n[r.to];
    if(r.type==3){ t=t0; applyData(t.n[r.to],r.sec,r.val,r.stamp,true,false); memset(&t.res[k],0,sizeof(Res)); go({A_RESDEL,r.from,r.to,r.sec}); continue; }
    if(R.refuse && R.drain && r.bal<X0.promised) { // refused: disappears (canonical: drop silently)
      t=t0; memset(&t.res[k],0,sizeof(Res)); go({A_RESDEL,r.from,r.to,0x7e}); continue; }
    t=t0; Node&Xn=t.n[r.to];
    if(r.type==1) applyData(Xn,r.sec,r.val,r.stamp,false,false);
    else { u8 m=secsOfExt(r.sec); if(R.mapdur) for(int s=0;s<S;s++) if(m>>s&1) Xn.sdur[B(s)]=Xn.scac[B(s)]; Xn.intents&=~(1<<r.sec); Xn.idur&=~(1<<r.sec); if(r.val) Xn.pinned&=~(1<<r.sec); }
    memset(&t.res[k],0,sizeof(Res)); go({A_RESDEL,r.from,r.to,r.sec}); }
  // --- store
  if(grow && !t0.gEp && (!R.growRoom || !(t0.hins[E]&~t0.rep)) && (E<Emax || !R.growEpoch)){
    t=t0; if(R.growEpoch){ int e=++t.epoch; t.hprim[e]=t.hprim[E]; t.hins[e]=t.hins[E]; memcpy(t.hinc[e],t.hinc[E],MN); } t.gEp=t.epoch; go({A_GROW,t.epoch}); }
  if(E<Emax){
    auto newcfg=[&](int prim,u8 ins){ t=t0; int e=++t.epoch; t.hprim[e]=prim; t.hins[e]=ins; memcpy(t.hinc[e],t.hinc[E],MN); return e; };
    u8 ins=t0.hins[E]; int pr=t0.hprim[E];
    for(int x=0;x<N;x++) if(x!=pr && (ins>>x&1)){ int e=newcfg(pr,ins&~(1<<x)); go({A_REMOVE,(u8)x,(u8)e}); }
    if(t0.prAct && t0.prEp==E && !(ins>>t0.prX&1) && (!t0.gEp || !R.growAdd || (t0.rep>>t0.prX&1))){ int e=newcfg(pr,ins|1<<t0.prX); t.hinc[e][t0.prX]=t0.prInc; t.prAct=0;t.prEp=t.prX=t.prInc=0; go({A_ADD,t0.prX,(u8)e}); }
    if(!R.cas) for(int p=0;p<N;p++) if(t0.n[p].lead && t0.n[p].view<E) for(int x=0;x<N;x++) if(x!=p && (t0.hins[t0.n[p].view]>>x&1)){ int e=newcfg(p,t0.hins[t0.n[p].view]&~(1<<x)); go({A_BLINDRM,(u8)p,(u8)x,(u8)e}); }
    for(int b=0;b<N;b++) if(b!=pr){
      u8 cand=ins; if(R.cas==2 && E>1) cand|=t0.hins[E-1]; if(!(cand>>b&1)) continue;
      u8 sets[3]={(u8)((ins|1<<b)&~(1<<pr)),(u8)(ins|1<<b),(u8)(1<<b)}; int ns=R.shrink?0:2;
      u8 seen=0; for(int k=0;k<3;k++){ if(R.shrink&&k<2) continue; if(!R.shrink&&k==2&&N==3) continue; bool dup=false; for(int j=0;j<k;j++) if(!(R.shrink&&j<2)&&sets[j]==sets[k]) dup=true; if(dup) continue; (void)seen;(void)ns;
        int e=newcfg(b,sets[k]); t.vm=b; t.vmEp=e; memset(t.cpend,0,MS); t.cfl=0; memset(t.flsnap,0,MS); go({A_TAKE,(u8)b,sets[k],(u8)e}); } }
    if(t0.nFo<foMax) for(int b=0;b<N;b++) if(!(ins>>b&1)){ int e=newcfg(b,1<<b); t.hinc[e][b]=t.n[b].inc; t.nFo++; t.fork=e; t.vm=b; t.vmEp=e; memset(t.cpend,0,MS); t.cfl=0; memset(t.flsnap,0,MS); for(int s=0;s<S;s++){ t.allowed[s]=0xff; t.fl[s]=0xff; } t.bkOn=0; t.seen=0; go({A_FORCE,(u8)b,(u8)e}); }
    // cold
    bool alllost=true; for(int x=0;x<N;x++) if((ins>>x&1)&&incOK(t0,E,x)) alllost=false;
    for(int b=0;b<N;b++) if((ins>>b&1) && !incOK(t0,E,b) && (alllost || !R.cold)){
      u8 lost=0; for(int x=0;x<N;x++) if((ins>>x&1)&&!incOK(t0,E,x)) lost|=1<<x;
      u8 sets[2]={(u8)(1<<b),lost}; for(int k=0;k<2;k++){ if(k==1&&sets[1]==sets[0]) continue; if(R.shrink&&k==1) continue;
        int e=newcfg(b,sets[k]); for(int x=0;x<N;x++) if(sets[k]>>x&1) t.hinc[e][x]=t.n[x].inc; t.vm=b; t.vmEp=e; memset(t.cpend,0,MS); t.cfl=0; memset(t.flsnap,0,MS);
        if(alllost||coldLegit){ for(int s=0;s<S;s++) t.allowed[s]=t.fl[s]; if(R.coldsync) t.cold=(1<<S)-1; }
        go({A_COLD,(u8)b,sets[k],(u8)e}); } }
  }
}
static void canon(St&t){ // forget configurations nobody can look at any more
  if(R.base==3||R.base==5) return;
  int mn=t.epoch; for(int i=0;i<N;i++){ const Node&n=t.n[i]; int v=n.view?n.view:n.promised/4; if(n.lead) v=std::min(v,(int)n.lead/4); if(v==0) v=1; mn=std::min(mn,v); if(n.promised/4<mn) mn=n.promised/4; }
  if(R.cas!=1) mn=std::min(mn,(int)t.epoch-1); if(mn<1) mn=1;
  for(int e=1;e<mn;e++){ t.hprim[e]=0;t.hins[e]=0; memset(t.hinc[e],0,MN);} 
  if(t.gEp && t.gEp<mn) t.gEp=1;
  if(t.prAct && t.prEp<t.epoch){ t.prAct=t.prEp=t.prX=t.prInc=0; }
  if(t.res[0].type==0 && t.res[1].type){ t.res[0]=t.res[1]; memset(&t.res[1],0,sizeof(Res)); }
  if(t.res[0].type && t.res[1].type && memcmp(&t.res[0],&t.res[1],sizeof(Res))>0) std::swap(t.res[0],t.res[1]);
}
static void normInc(St&t){ for(int i=0;i<N;i++){ u8 c=t.n[i].inc; auto f=[&](u8&v){ v=(v==c)?0:1; };
    for(int e=1;e<=t.epoch;e++) if(t.hins[e]>>i&1) f(t.hinc[e][i]); else t.hinc[e][i]=0;
    if(t.prAct&&t.prX==i) f(t.prInc); for(int q=0;q<N;q++) if(t.n[q].join==i) f(t.n[q].jinc); t.n[i].inc=0; } }
static u8 sw12(u8 m){ return (m&~6)|((m&2)<<1)|((m&4)>>1); }
static bool useSym=false; static int startOut=0;
static void swapNodes(St&t){ // exchange replicas B and C
  auto id=[&](u8&x){ if(x==1) x=2; else if(x==2) x=1; };
  for(int e=1;e<ME;e++){ id(t.hprim[e]); t.hins[e]=sw12(t.hins[e]); std::swap(t.hinc[e][1],t.hinc[e][2]); }
  if(t.prAct) id(t.prX); id(t.vm); t.rep=sw12(t.rep);
  for(auto&r:t.res) if(r.type){ id(r.from); id(r.to); }
  std::swap(t.n[1],t.n[2]);
  for(int i=0;i<3;i++){ Node&n=t.n[i]; std::swap(n.need[1],n.need[2]); n.conn=sw12(n.conn); n.known=sw12(n.known); n.flAck=sw12(n.flAck); if(n.join!=NONE) id(n.join); for(auto&o:n.op){ o.acked=sw12(o.acked); o.tgt=sw12(o.tgt);} }
  if(t.res[0].type && t.res[1].type && memcmp(&t.res[0],&t.res[1],sizeof(Res))>0) std::swap(t.res[0],t.res[1]);
}
static void canonFull(St&t){ canon(t); normInc(t); if(useSym && N==3){ St u=t; swapNodes(u); if(memcmp(&u,&t,sizeof(St))<0) t=u; } }
static u64 hashSt(const St&t){ const u8*p=(const u8*)&t; u64 h=0x9E3779B97F4A7C15ull^sizeof(St); size_t n=sizeof(St);
  while(n>=8){ u64 k; memcpy(&k,p,8); h^=k; h*=0xff51afd7ed558ccdull; h^=h>>32; h*=0xc4ceb9fe1a85ec53ull; h^=h>>29; p+=8;n-=8; }
  u64 k=0; memcpy(&k,p,n); h^=k; h*=0xff51afd7ed558ccdull; h^=h>>33; h*=0xc4ceb9fe1a85ec53ull; h^=h>>32; return h?h:1; }
static St init(){ St t; memset(&t,0,sizeof t); t.epoch=1; t.hprim[1]=0; t.hins[1]=(1<<N)-1; t.vm=0;
  for(int i=0;i<N;i++){ Node&n=t.n[i]; n.view=1; n.promised=n.active=4; n.join=NONE; }
  t.n[0].lead=4; t.n[0].known=t.n[0].conn=((1<<N)-1)&~1; t.n[0].promised=4;
  for(int s=0;s<S;s++){ t.allowed[s]=1; t.fl[s]=1; }
  for(int i=N;i<MN;i++) t.n[i].join=NONE;
  if(startOut==2){ // equal content, different history (N=3): W1 everywhere, B out, W2 at A and C, C out, W1 again at A; all flushed and cleared
    u8 b[3]={12,4,8}, v[3]={1,1,2}; t.epoch=3; t.hprim[2]=t.hprim[3]=0; t.hins[2]=5; t.hins[3]=1; t.n[0].lead=12; t.n[0].known=t.n[0].conn=0; t.nW=2;
    for(int i=0;i<3;i++){ Node&n=t.n[i]; n.view=3; n.promised=n.active=b[i]; for(int s=0;s<S;s++) n.dur[s]=n.cac[s]=v[i]; for(int k=0;k<NBk;k++) n.sdur[k]=n.scac[k]=b[i]; }
    for(int s=0;s<S;s++) t.allowed[s]=t.fl[s]=2; }
  if(startOut==1){ // the last replica is already out: epoch 2 without it, entered by the others
    int z=N-1; t.epoch=2; t.hprim[2]=0; t.hins[2]=t.hins[1]&~(1<<z); t.n[0].lead=8; t.n[0].known=t.n[0].conn=t.hins[2]&~1;
    for(int i=0;i<z;i++){ t.n[i].view=2; t.n[i].promised=t.n[i].active=8; } }
  return t; }
static void dump(const St&t){
  printf("      cfg e%d prim %c insync %d inc[%d%d%d] | allowed",t.epoch,"ABC"[t.hprim[t.epoch]],t.hins[t.epoch],t.hinc[t.epoch][0],t.hinc[t.epoch][1],t.hinc[t.epoch][2]);
  for(int s=0;s<S;s++) printf(" s%d:%x/fl:%x",s,t.allowed[s],t.fl[s]); if(grow) printf(" | GROW e%d reported %x seen %d",t.gEp,t.rep,t.seen); printf("\n");
  for(int i=0;i<N;i++){ const Node&n=t.n[i]; printf("      %c view%d lead%d.%d prom%d.%d act%d.%d inc%d int%x unfl%x need[%x%x%x] join%d/%d |","ABC"[i],n.view,n.lead/4,n.lead%4,n.promised/4,n.promised%4,n.active/4,n.active%4,n.inc,n.intents,n.unfl,n.need[0],n.need[1],n.need[2],n.join==NONE?-1:n.join,n.jph);
    if(grow) printf(" room%d/%d",n.room,n.roomd);
    for(int s=0;s<S;s++) printf(" W%d(disk W%d)",n.cac[s],n.dur[s]); for(int b=0;b<NBk;b++) printf(" st%d.%d(%d.%d)",n.scac[b]/4,n.scac[b]%4,n.sdur[b]/4,n.sdur[b]%4); printf("\n"); } }
static u64 cov[64];
// ---- breadth-first search ----------------------------------------------------------------------
static size_t maxStates=60000000; static bool verbose=false;
static int bfs(double tlim){
  size_t cap=1<<20;
  std::vector<u64> tab(cap,0); std::vector<u64> fps; std::vector<u32> par; size_t count=0;
  auto insert=[&](u64 h)->bool{ if(count*10>cap*7){ size_t nc=cap*2; std::vector<u64> nt(nc,0); for(u64 v:tab) if(v){ size_t j=v&(nc-1); while(nt[j]) j=(j+1)&(nc-1); nt[j]=v; } tab.swap(nt); cap=nc; }
    size_t i=h&(cap-1); while(tab[i]){ if(tab[i]==h) return false; i=(i+1)&(cap-1);} tab[i]=h; count++; return true; };
  struct Ent{ St s; u32 i; }; char fn[2][64]; sprintf(fn[0],"vm_frontier_%d_0.bin",(int)getpid()); sprintf(fn[1],"vm_frontier_%d_1.bin",(int)getpid());
  St s0=init(); canonFull(s0); insert(hashSt(s0)); fps.push_back(hashSt(s0)); par.push_back(0);
  FILE*fc=fopen(fn[0],"w+b"); { Ent e; e.s=s0; e.i=0; fwrite(&e,sizeof e,1,fc); } size_t ncur=1,nnxt=0;
  time_t t0=time(0); int depth=0; bool found=false; u32 fidx=0; Act fact{}; St fst; const char* fv=nullptr; u64 trans=0; int which=1;
  while(ncur && !found){
    FILE*fx=fopen(fn[which],"w+b"); setvbuf(fx,nullptr,_IOFBF,1<<20); nnxt=0; rewind(fc); Ent ce;
    for(size_t k=0;k<ncur&&!found;k++){ if(fread(&ce,sizeof ce,1,fc)!=1) abort();
      succ(ce.s,[&](const St&q,const Act&a){
        if(found) return; trans++; cov[a.code]++;
        const char*v=viol; viol=nullptr;
        St t=q; if(!v){ checks(t); v=viol; viol=nullptr; }
        if(v){ found=true; fv=v; fidx=ce.i; fact=a; fst=t; return; }
        canonFull(t); u64 h=hashSt(t); if(insert(h)){ fps.push_back(h); par.push_back(ce.i); Ent e; e.s=t; e.i=fps.size()-1; fwrite(&e,sizeof e,1,fx); nnxt++; } });
      if(count>maxStates || ((k&1023)==0 && difftime(time(0),t0)>tlim)){ printf("  LIMIT depth %d states %zu transitions %llu (%.0fs) no violation so far\n",depth,count,(unsigned long long)trans,difftime(time(0),t0)); fflush(stdout); fclose(fc); fclose(fx); unlink(fn[0]); unlink(fn[1]); return 2; }
    }
    fclose(fc); fc=fx; ncur=nnxt; which^=1; depth++;
    if(verbose) { printf("  depth %d frontier %zu states %zu\n",depth,ncur,count); fflush(stdout);} }
  fclose(fc); unlink(fn[0]); unlink(fn[1]);
  if(!found){ printf("  HOLDS  exhaustive: states %zu transitions %llu depth %d (%.0fs)\n",count,(unsigned long long)trans,depth,difftime(time(0),t0)); fflush(stdout); return 0; }
  printf("  BROKEN after %d steps, %zu states: %s\n",depth+1,count,fv);
  std::vector<u32> path; for(u32 i=fidx;i;i=par[i]) path.push_back(i); std::reverse(path.begin(),path.end());
  St c=init(); canonFull(c); int stepn=1;
  for(u32 id:path){ bool ok=false; St nx; Act na{}; succ(c,[&](const St&q,const Act&a){ if(ok) return; viol=nullptr; St t=q; canonFull(t); if(hashSt(t)==fps[id]){ ok=true; nx=t; na=a; } });
    if(!ok){ printf("   (trace reconstruction failed)\n"); break; } c=nx; printf("   %2d. %s\n",stepn++,actstr(na).c_str()); if(verbose) dump(c); }
  printf("   %2d. %s   <== violation\n",stepn,actstr(fact).c_str()); dump(fst); fflush(stdout);
  return 1; }
// ---- random walks ------------------------------------------------------------------------------
static u64 rs=88172645463325252ull; static u64 rnd(){ rs^=rs<<13; rs^=rs>>7; rs^=rs<<17; return rs; }
static int weight(const Act&a){ switch(a.code){ case A_CRASH: return 2; case A_POWER: return 3; case A_RESET: case A_DELIVLOST: return 2; case A_REMOVE: return 2; case A_TAKE: return 2; case A_COLD: return 8; case A_FORCE: return 4; case A_BUMP: return 4; case A_ADD: return 10; case A_READ: return 12; case A_JABANDON: return 1; case A_CLR: case A_CLRX: return 8; default: return 10; } }
static int swarm=0, healOn=0; static u8 wt[64];
static int wOf(const Act&a){ int w=weight(a); return swarm? w*wt[a.code]:w; }
static std::vector<std::pair<St,Act>> outs; static std::vector<const char*> outv;
static bool healed(const St&t){ int e=t.epoch,p=t.hprim[e]; const Node&P=t.n[p]; if(t.hins[e]!=(1<<N)-1||!P.lead||P.lead/4!=e||(grow&&!useSize(t,P))) return false;
  for(int x=0;x<N;x++){ if(!incOK(t,e,x)) return false; if(x!=p && (!(P.conn>>x&1)||P.need[x])) return false; for(int s=0;s<S;s++) if(t.n[x].cac[s]!=P.cac[s]) return false; }
  for(int s=0;s<S;s++) if(t.cpend[s]||P.op[s].kind) return false; return !t.cfl; }
static u64 healSteps=0,healMax=0;
static bool heal(St c,std::vector<Act>&tr){ int sC=Cmax,sP=Pmax,sR=Rmax,sW=Wmax,sF=Fmax,sE=Emax,sB=bkMax; Cmax=Pmax=Rmax=Wmax=Fmax=0; bkMax=0; Emax=ME-1; memset(c.res,0,sizeof c.res); bool ok=false; int k;
  for(k=0;k<150;k++){ if(healed(c)){ ok=true; break; }
    int e=c.epoch,p=c.hprim[e]; u8 ins=c.hins[e]; bool pOK=incOK(c,e,p); bool anyOK=false; for(int x=0;x<N;x++) if((ins>>x&1)&&incOK(c,e,x)) anyOK=true; bool mism=false; for(int x=0;x<N;x++) if(x!=p&&(ins>>x&1)&&!incOK(c,e,x)) mism=true;
    int best=-1,bp=-1; outs.clear();
    succ(c,[&](const St&q,const Act&a){ viol=nullptr; int pr=-1; switch(a.code){
      case A_LEARN: pr=a.b==e?100:-1; break; case A_START: pr=90; break; case A_HS: pr=a.a==p?80:-1; break;
      case A_TAKE: pr=(!pOK&&anyOK&&incOK(c,e,a.a))?110:-1; break; case A_COLD: pr=(!pOK&&!anyOK)?110:-1; break;
      case A_REMOVE: pr=(pOK && !incOK(c,e,a.a))?105:-1; break; case A_BUMP: pr=95; break; case A_ADD: pr=85; break;
      case A_LOCAL: case A_DELIV: case A_COMPL: case A_COPY: case A_FLLOC: case A_FLDEL: case A_FLCOMPL: pr=a.a==p?70:-1; break;
      case A_JOINT: case A_JSYNC: pr=a.a==p?60:-1; break; case A_JPROP: pr=(a.a==p)?60:-1; break; case A_REACC: case A_REFL: pr=75; break; case A_ROOM: case A_ROOMDUR: case A_REPORT: case A_GROW: case A_SEE: pr=103; break; default: pr=-1; }
      if(pr>bp){ bp=pr; best=outs.size(); outs.push_back({q,a}); } });
    if(bp<0) break; viol=nullptr; c=outs[best].first; tr.push_back(outs[best].second); checks(c); if(viol){ break; } canon(c); normInc(c); }
  Cmax=sC;Pmax=sP;Rmax=sR;Wmax=sW;Fmax=sF;Emax=sE;bkMax=sB; healSteps+=k; if((u64)k>healMax) healMax=k; if(!ok){ dump(c);} return ok; }
static int walks(u64 nw,int len,double tlim,u64 seed){
  rs=seed*0x9E3779B97F4A7C15ull+1; for(int i=0;i<10;i++) rnd(); time_t t0=time(0); u64 steps=0; u64 w; int mC=Cmax,mP=Pmax,mR=Rmax,mW=Wmax,mF=Fmax; u64 nh=0;
  for(w=0;w<nw;w++){ std::vector<Act> tr; u64 ws=rs;
    if(swarm){ static const u8 ws4[4]={1,3,10,30}; for(int i=0;i<64;i++) wt[i]=ws4[rnd()&3]; Cmax=rnd()%(mC+1); Pmax=rnd()%(mP+1); Rmax=rnd()%(mR+1); Wmax=1+rnd()%mW; Fmax=rnd()%(mF+1); }
    St c=init();
    for(int k=0;k<len;k++){ outs.clear(); outv.clear(); long tot=0;
      succ(c,[&](const St&q,const Act&a){ outs.push_back({q,a}); outv.push_back(viol); viol=nullptr; tot+=wOf(a); });
      if(outs.empty()) break; long r=rnd()%tot; size_t i=0; while(r>=wOf(outs[i].second)){ r-=wOf(outs[i].second); i++; }
      for(size_t j=0;j<=outs.size();j++){ size_t q=j==0?i:j-1; const char*v=outv[q]; if(!v){ viol=nullptr; checks(outs[q].first); v=viol; viol=nullptr; }
        if(v){ printf("  BROKEN in walk %llu step %d: %s\n",(unsigned long long)w,k,v); int n=1; for(auto&a:tr) printf("   %2d. %s\n",n++,actstr(a).c_str()); printf("   %2d. %s  <== violation\n",n,actstr(outs[q].second).c_str()); dump(outs[q].first); return 1; }
        if(j==0 && (k%4)) break; }
      cov[outs[i].second.code]++; c=outs[i].first; canon(c); normInc(c); tr.push_back(outs[i].second); steps++; }
    if(healOn && (w%healOn)==0){ std::vector<Act> ht; nh++; St save=c; if(!heal(c,ht)){ printf("  NOT HEALED in walk %llu\n",(unsigned long long)w); int n=1; for(auto&a:tr) printf("   %2d. %s\n",n++,actstr(a).c_str()); printf("   --- heal:\n"); for(auto&a:ht) printf("   %2d. %s\n",n++,actstr(a).c_str()); dump(save); return 1; } }
    if((w&255)==0 && difftime(time(0),t0)>tlim) break; }
  printf("  HOLDS in %llu random walks, %llu steps (%.0fs)",(unsigned long long)w,(unsigned long long)steps,difftime(time(0),t0)); if(healOn) printf("; healed %llu times, mean %.1f max %llu steps",(unsigned long long)nh,(double)healSteps/nh,(unsigned long long)healMax); printf("\n"); return 0; }
int main(int argc,char**argv){
  std::map<std::string,int*> P={{"N",&N},{"S",&S},{"NB",&NBk},{"NX",&NX},{"W",&Wmax},{"F",&Fmax},{"C",&Cmax},{"P",&Pmax},{"R",&Rmax},{"E",&Emax},
    {"ackAll",&R.ackAll},{"cas",&R.cas},{"settle",&R.settle},{"promise",&R.promise},{"refuse",&R.refuse},{"fence",&R.fence},{"drain",&R.drain},{"intent",&R.intent},{"clear",&R.clear},{"mapdur",&R.mapdur},{"reissue",&R.reissue},{"restamp",&R.restamp},{"base",&R.base},{"incHS",&R.incHS},{"incPrim",&R.incPrim},{"cold",&R.cold},{"joinsync",&R.joinsync},{"joint",&R.joint},{"uncopied",&R.uncopied},{"needmark",&R.needmark},{"session",&R.session},{"nbd",&R.nbd},{"readwait",&R.readwait},{"restart",&R.restart},{"rsintent",&R.rsintent},{"actearly",&R.actearly},{"lateadd",&R.lateadd},{"mapmem",&R.mapmem},{"stampcopy",&R.stampcopy},{"stepdrain",&R.stepdrain},{"shrink",&R.shrink},{"coldsync",&R.coldsync},{"ackinc",&R.ackinc},{"unionS",&R.unionS},{"fork",&R.fork},{"vmep",&R.vmep},{"pin",&R.pin},{"crashdrain",&R.crashdrain},{"keepjoin",&R.keepjoin},
    {"grow",&grow},{"growEpoch",&R.growEpoch},{"growRoom",&R.growRoom},{"growDrop",&R.growDrop},{"growAdd",&R.growAdd},{"growGreet",&R.growGreet},{"growStart",&R.growStart},{"growUse",&R.growUse},{"growDur",&R.growDur},{"growLag",&R.growLag},{"growStamp",&R.growStamp}};
  double tl=300; u64 walksN=0; int wl=80; u64 seed=1; int b0=-1; long ms=0;
  for(int i=1;i<argc;i++){ std::string a=argv[i]; size_t e=a.find('='); std::string k=a.substr(0,e); int v=e==std::string::npos?1:atoi(a.c_str()+e+1);
    if(P.count(k)) *P[k]=v; else if(k=="A") chkA=v; else if(k=="D") chkD=v; else if(k=="chkE") chkE=v; else if(k=="chkG") chkG=v; else if(k=="chkM") chkM=v; else if(k=="WB") useWB=v; else if(k=="v") verbose=v; else if(k=="t") tl=v; else if(k=="walks") walksN=v; else if(k=="len") wl=v; else if(k=="seed") seed=v; else if(k=="sym") useSym=v; else if(k=="out") startOut=v; else if(k=="eager") eager=v; else if(k=="coldLegit") coldLegit=v; else if(k=="bk") bkMax=v; else if(k=="bkBump") bkBump=v; else if(k=="force") foMax=v; else if(k=="swarm") swarm=v; else if(k=="heal") healOn=v; else if(k=="layout") b0=v; else if(k=="ms") ms=v; else { fprintf(stderr,"unknown %s\n",k.c_str()); return 2; } }
  if(ms) maxStates=(size_t)ms*1000000;
  // layout: 1 = one sector; 2 = two sectors in one block; 3 = two blocks in one extent; 4 = two extents
  if(b0==2){ S=2;NBk=1;NX=1; blk[0]=blk[1]=0; ext[0]=0; } else if(b0==3){ S=2;NBk=2;NX=1; blk[0]=0;blk[1]=1; ext[0]=ext[1]=0; } else if(b0==4){ S=2;NBk=2;NX=2; blk[0]=0;blk[1]=1;ext[0]=0;ext[1]=1; } else { S=1;NBk=1;NX=1; blk[0]=0; ext[0]=0; }
  if(grow && S<2){ fprintf(stderr,"grow needs layout 2, 3 or 4\n"); return 2; }
  int rc= walksN? walks(walksN,wl,tl,seed):bfs(tl);
  if(verbose){ printf("  coverage:"); for(int i=1;i<44;i++) printf(" %d:%llu",i,(unsigned long long)cov[i]); printf("\n"); }
  return rc; }
