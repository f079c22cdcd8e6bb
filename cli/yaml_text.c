/* SPDX-License-Identifier: Apache-2.0
 * The text of resource files, by libyaml: bounded before it is loaded, then document by document. */
#include "cli/yaml_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX      16 /* libyaml's time grows with the square of the depth, */
#define ANCHORS_MAX    64 /* and with that of the number of a document's anchors */
#define DIRECTIVES_MAX 64 /* and of its directives */

/* libyaml counts only bytes where bytes are what is wrong. */
static int mistake_at_byte(const struct reader *r, size_t offset, const char *what)
{
	size_t line = 0, column = 0;

	for (size_t i = 0; i < offset && i < r->text->len; i++) {
		bool is_inside_a_character = (r->text->data[i] & 0xc0) == 0x80;

		column += !is_inside_a_character;
		if (r->text->data[i] == '\n') {
			line++;
			column = 0;
		}
	}
	return yaml_mistake_at(r, line, column, what);
}

static int parser_mistake(const struct reader *r, const yaml_parser_t *p)
{
	char text[200];

	(void)snprintf(text, sizeof text, "this is no YAML: %s%s%s", p->context ? p->context : "",
		       p->context ? ", " : "", p->problem ? p->problem : "out of memory");
	if (p->error == YAML_READER_ERROR)
		return mistake_at_byte(r, p->problem_offset, text);
	return yaml_mistake_at(r, p->problem_mark.line, p->problem_mark.column, text);
}

static bool open_parser(const struct reader *r, yaml_parser_t *ret)
{
	if (!yaml_parser_initialize(ret))
		return false;
	yaml_parser_set_input_string(ret, r->text->data ? r->text->data : (const uint8_t *)"", r->text->len);
	return true;
}

struct shape {
	size_t depth;
	size_t anchors; /* of this document */
	bool is_over;
};

static bool has_anchor(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.anchor != NULL;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.anchor != NULL;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.anchor != NULL;
	default:
		return false;
	}
}

static int add_to_shape(const struct reader *r, const yaml_event_t *event, struct shape *shape)
{
	char text[100];

	if (event->type == YAML_DOCUMENT_START_EVENT)
		shape->anchors = 0;
	if (event->type == YAML_SEQUENCE_START_EVENT || event->type == YAML_MAPPING_START_EVENT)
		shape->depth++;
	if (event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT)
		shape->depth--;
	shape->anchors += has_anchor(event);
	shape->is_over = event->type == YAML_STREAM_END_EVENT;
	if (shape->depth > DEPTH_MAX)
		(void)snprintf(text, sizeof text, "nested deeper than %d", DEPTH_MAX);
	else if (shape->anchors > ANCHORS_MAX)
		(void)snprintf(text, sizeof text, "more than %d anchors: write the values out", ANCHORS_MAX);
	else
		return 0;
	return yaml_mistake_at(r, event->start_mark.line, event->start_mark.column, text);
}

static int check_directives(const struct reader *r)
{
	const uint8_t *at = r->text->data;
	size_t left = r->text->len, n = 0;
	char text[60];

	for (size_t line = 0; left > 0; line++) {
		const uint8_t *end = memchr(at, '\n', left);

		n += *at == '%';
		if (n > DIRECTIVES_MAX) {
			(void)snprintf(text, sizeof text, "more than %d directives", DIRECTIVES_MAX);
			return yaml_mistake_at(r, line, 0, text);
		}
		left -= end ? (size_t)(end - at) + 1 : left;
		at = end ? end + 1 : at;
	}
	return 0;
}

/* Before anything is loaded: what would take libyaml minutes ends here at the first level that is too deep. */
static int check_shape(const struct reader *r)
{
	struct shape shape = {0};
	yaml_parser_t parser;
	int rc = check_directives(r);

	if (rc < 0)
		return rc;
	if (!open_parser(r, &parser))
		return err_set(r->e, -ENOMEM, "%.200s: out of memory", r->file);
	while (rc == 0 && !shape.is_over) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event)) {
			rc = parser_mistake(r, &parser);
			break;
		}
		rc = add_to_shape(r, &event, &shape);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	return rc;
}

/* 1: there may be more. */
static int next_document(struct reader *r, yaml_parser_t *parser)
{
	yaml_document_t doc;
	yaml_node_t *root;
	int rc = 1;

	if (!yaml_parser_load(parser, &doc))
		return parser_mistake(r, parser);
	r->doc = &doc;
	root = yaml_document_get_root_node(&doc);
	if (!root)
		rc = 0;
	else if (yaml_document_read(r, root) < 0)
		rc = -EINVAL;
	yaml_document_delete(&doc);
	return rc;
}

static int read_documents(struct reader *r)
{
	yaml_parser_t parser;
	int rc;

	if (!open_parser(r, &parser))
		return err_set(r->e, -ENOMEM, "%.200s: out of memory", r->file);
	do
		rc = next_document(r, &parser);
	while (rc > 0);
	yaml_parser_delete(&parser);
	if (rc == 0 && r->n == 0)
		rc = yaml_mistake_at(r, 0, 0, "there is no document in this file");
	return rc;
}

int yaml_read(const char *file, const char *folder, const struct buf *text, struct yaml_document **ret, size_t *ret_n,
	      struct err *e)
{
	struct reader r = {.file = file, .folder = folder, .text = text, .e = e};
	int rc = check_shape(&r);

	if (rc == 0)
		rc = read_documents(&r);
	if (rc < 0) {
		free(r.docs);
		return rc;
	}
	*ret = r.docs;
	*ret_n = r.n;
	return 0;
}
