/* Shared pages. See shm.h. */
#include "common/core/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/invariant.h"
#include "common/core/limits.h"

struct shm_doc {
	_Atomic uint64_t
		generation; /* counts finished writes; copy (generation & 1) is the newest */
	struct {
		_Atomic int64_t at_ms;
		_Atomic uint64_t len;
	} copy[2];
};

struct shm_region {
	uint32_t magic, version, doc_count, pad;
	uint64_t doc_max;
	_Atomic int64_t scalars[SHM_SCALARS];
	struct shm_doc docs[SHM_DOCS_MAX];
	char bytes[]; /* doc_count * 2 * doc_max */
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "scalars must be lock-free between processes");

static size_t region_size(unsigned doc_count, size_t doc_max)
{
	size_t raw = sizeof(struct shm_region) + 2 * doc_count * doc_max;
	return (raw + 4095) & ~(size_t)4095;
}

enum err_code shm_create(
	struct shm *out, const char *name, unsigned doc_count, size_t doc_max, struct err *err)
{
	INVARIANT(doc_count <= SHM_DOCS_MAX && doc_max <= LIMIT_SHM_DOC);
	size_t size = region_size(doc_count, doc_max);
	AUTO_FD fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "memfd_create %s", name);
	if (ftruncate(fd, (off_t)size) < 0)
		return err_set(err, ERR_SYS, errno, "ftruncate %s", name);
	struct shm_region *r = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (r == MAP_FAILED)
		return err_set(err, ERR_SYS, errno, "mmap %s", name);
	r->version = SHM_VERSION;
	r->doc_count = doc_count;
	r->doc_max = doc_max;
	r->magic = SHM_MAGIC;
	if (fcntl(fd, F_ADD_SEALS,
		    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
		int saved = errno;
		munmap(r, size);
		return err_set(err, ERR_SYS, saved, "seal %s", name);
	}
	out->region = r;
	out->size = size;
	out->fd = fd;
	fd = -1;
	return ERR_OK;
}

enum err_code shm_map(struct shm *out, int fd, struct err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return err_set(err, ERR_SYS, errno, "shared page: fstat");
	int seals = fcntl(fd, F_GET_SEALS);
	const int want = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;
	if (seals < 0 || (seals & want) != want)
		return err_set(err, ERR_PROTO, 0, "shared page: not sealed");
	if (st.st_size < (off_t)sizeof(struct shm_region))
		return err_set(err, ERR_PROTO, 0, "shared page: size %lld", (long long)st.st_size);
	void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return err_set(err, ERR_SYS, errno, "shared page: mmap");
	const struct shm_region *r = p;
	if (r->magic != SHM_MAGIC || r->version != SHM_VERSION || r->doc_count > SHM_DOCS_MAX ||
		r->doc_max > LIMIT_SHM_DOC ||
		region_size(r->doc_count, r->doc_max) != (size_t)st.st_size) {
		munmap(p, (size_t)st.st_size);
		return err_set(err, ERR_PROTO, 0, "shared page: unknown layout");
	}
	out->region = p;
	out->size = (size_t)st.st_size;
	out->fd = -1;
	return ERR_OK;
}

void shm_done(struct shm *s)
{
	if (s->region != NULL)
		munmap(s->region, s->size);
	if (s->fd >= 0)
		close(s->fd);
	s->region = NULL;
	s->size = 0;
	s->fd = -1;
}

void shm_scalar_set(struct shm *s, unsigned index, int64_t value)
{
	INVARIANT(index < SHM_SCALARS);
	if (s->region != NULL)
		atomic_store_explicit(&s->region->scalars[index], value, memory_order_release);
}

int64_t shm_scalar_get(const struct shm *s, unsigned index)
{
	INVARIANT(index < SHM_SCALARS);
	if (s->region == NULL)
		return 0;
	return atomic_load_explicit(&s->region->scalars[index], memory_order_acquire);
}

static char *copy_at(const struct shm_region *r, unsigned doc, unsigned copy)
{
	return (char *)r->bytes + (2 * (size_t)doc + copy) * r->doc_max;
}

enum err_code shm_doc_write(
	struct shm *s, unsigned doc, const void *bytes, size_t len, int64_t at_ms, struct err *err)
{
	struct shm_region *r = s->region;
	INVARIANT(r != NULL && doc < r->doc_count);
	if (len > r->doc_max)
		return err_set(err, ERR_LIMIT, 0, "document of %zu bytes, limit %llu", len,
			(unsigned long long)r->doc_max);
	struct shm_doc *d = &r->docs[doc];
	uint64_t next = atomic_load_explicit(&d->generation, memory_order_relaxed) + 1;
	unsigned c = next & 1;
	/* No byte of this copy may be seen before the generation of the write before it. */
	atomic_thread_fence(memory_order_release);
	memcpy(copy_at(r, doc, c), bytes, len);
	atomic_store_explicit(&d->copy[c].len, len, memory_order_relaxed);
	atomic_store_explicit(&d->copy[c].at_ms, at_ms, memory_order_relaxed);
	atomic_store_explicit(&d->generation, next, memory_order_release);
	return ERR_OK;
}

uint64_t shm_doc_generation(const struct shm *s, unsigned doc)
{
	if (s->region == NULL || doc >= s->region->doc_count)
		return 0;
	return atomic_load_explicit(&s->region->docs[doc].generation, memory_order_acquire);
}

enum err_code shm_doc_read(const struct shm *s, unsigned doc, struct buf *out, int64_t *out_at_ms,
	uint64_t *out_generation, struct err *err)
{
	const struct shm_region *r = s->region;
	buf_reset(out);
	if (r == NULL || doc >= r->doc_count)
		return err_set(err, ERR_NOTFOUND, 0, "document %u: no page", doc);
	const struct shm_doc *d = &r->docs[doc];
	for (int attempt = 0; attempt < 16; attempt++) {
		uint64_t gen = atomic_load_explicit(&d->generation, memory_order_acquire);
		if (gen == 0)
			return err_set(err, ERR_NOTFOUND, 0, "document %u: never written", doc);
		unsigned c = gen & 1;
		uint64_t len = atomic_load_explicit(&d->copy[c].len, memory_order_relaxed);
		int64_t at_ms = atomic_load_explicit(&d->copy[c].at_ms, memory_order_relaxed);
		if (len > r->doc_max)
			continue;
		buf_reset(out);
		buf_add(out, copy_at(r, doc, c), len);
		atomic_thread_fence(memory_order_acquire);
		/* Copy c is overwritten from generation gen + 2's writer on, which starts after gen
		 * + 1. */
		if (atomic_load_explicit(&d->generation, memory_order_relaxed) != gen)
			continue;
		if (out->failed)
			return err_set(err, ERR_LIMIT, 0, "document %u: %llu bytes", doc,
				(unsigned long long)len);
		if (out_at_ms != NULL)
			*out_at_ms = at_ms;
		if (out_generation != NULL)
			*out_generation = gen;
		return ERR_OK;
	}
	return err_set(err, ERR_AGAIN, 0, "document %u: writer too busy", doc);
}
