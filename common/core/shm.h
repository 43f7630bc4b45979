/* Shared pages (DESIGN 3): status to readers, never commands and never safety. One writer per
 * region; each incarnation of a writer makes a new memfd, sealed against shrinking, growing and
 * further writable maps after its own map, and sent to the readers.
 *
 * A region is a header, a block of scalars (struct shm_scalars of the writer, plain C11 atomics
 * inside) and a fixed number of documents. A document has two copies; the index is flipped last, so
 * a writer's death leaves the previous copy whole. A reader re-checks the generation after copying,
 * a bounded number of times. */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/buf.h"
#include "common/core/err.h"

#define SHM_MAGIC    0x70677268u
#define SHM_VERSION  1
#define SHM_DOCS_MAX 8
#define SHM_SCALARS  64 /* int64 scalars of a region; what each index means is the writer's enum */

struct shm_region; /* layout in shm.c */

struct shm {
	struct shm_region *region; /* mapped; NULL = none */
	size_t size;
	int fd; /* the writer keeps it to send it; -1 for readers */
};

#define SHM_INIT                                                                                   \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/* Writer: a new region with doc_count documents of at most doc_max bytes each. */
MUST_USE enum err_code shm_create(
	struct shm *out, const char *name, unsigned doc_count, size_t doc_max, struct err *err);
/* Reader: map the descriptor read-only after checking size, seals and header. fd stays the
 * caller's. */
MUST_USE enum err_code shm_map(struct shm *out, int fd, struct err *err);
void shm_done(struct shm *s);

void shm_scalar_set(struct shm *s, unsigned index, int64_t value);
int64_t shm_scalar_get(const struct shm *s, unsigned index); /* 0 when nothing is mapped */

/* Writer: replace a document. at_ms = boot time at which its content was true. Over doc_max:
 * ERR_LIMIT, the old one stays. */
MUST_USE enum err_code shm_doc_write(
	struct shm *s, unsigned doc, const void *bytes, size_t len, int64_t at_ms, struct err *err);
/* Reader: copy the newest whole document into out (reset first). *out_at_ms and *out_generation
 * (may be NULL) tell its age and whether it changed. ERR_NOTFOUND: never written; ERR_AGAIN: writer
 * too busy. */
MUST_USE enum err_code shm_doc_read(const struct shm *s, unsigned doc, struct buf *out,
	int64_t *out_at_ms, uint64_t *out_generation, struct err *err);
/* Only the generation, for "did it change?"; 0 = never written. */
uint64_t shm_doc_generation(const struct shm *s, unsigned doc);
