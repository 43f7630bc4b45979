/* TLS files and ciphers. See tls.h. */
#include "api/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/core/str.h"

void tls_files_done(struct tls_files *f)
{
	if (f->key.data != NULL)
		explicit_bzero(f->key.data, f->key.len);
	buf_done(&f->cert);
	buf_done(&f->key);
	buf_done(&f->trust);
}

static enum err_code read_file(const char *path, const char *key, struct buf *out, struct err *err)
{
	char chunk[8192];
	AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, ERR_SYS, errno, "restapi.%s \"%s\"", key, path);
	for (;;) {
		ssize_t n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, ERR_SYS, errno, "restapi.%s \"%s\"", key, path);
		if (n == 0)
			break;
		buf_add(out, chunk, (size_t)n);
		if (out->failed)
			return err_set(err, ERR_LIMIT, 0, "restapi.%s \"%s\": over %zu bytes", key,
				path, out->max);
	}
	return ERR_OK;
}

static uint64_t mix(uint64_t hash, const struct buf *b)
{
	for (size_t i = 0; i < b->len; i++)
		hash = (hash ^ (uint8_t)b->data[i]) * 1099511628211u;
	return (hash ^ 0xff) * 1099511628211u;
}

enum err_code tls_files_read(struct tls_files *out, const struct api_settings *s, struct err *err)
{
	enum err_code rc = read_file(s->certfile, "certfile", &out->cert, err);
	if (rc == ERR_OK)
		rc = s->keyfile != NULL ? read_file(s->keyfile, "keyfile", &out->key, err)
					: read_file(s->certfile, "certfile", &out->key, err);
	if (rc == ERR_OK && s->cafile != NULL)
		rc = read_file(s->cafile, "cafile", &out->trust, err);
	out->hash = mix(mix(mix(14695981039346656037u, &out->cert), &out->key), &out->trust);
	return rc;
}

static gnutls_datum_t datum(const struct buf *b)
{
	return (gnutls_datum_t){ (unsigned char *)buf_str(b), (unsigned)b->len };
}

enum err_code tls_check(const struct tls_files *f, const struct api_settings *s,
	const char *priorities, struct err *err)
{
	gnutls_certificate_credentials_t cred;
	gnutls_priority_t cache;
	const char *where;
	gnutls_datum_t cert = datum(&f->cert), key = datum(&f->key), trust = datum(&f->trust);
	int rc = gnutls_priority_init(&cache, priorities, &where);
	if (rc < 0)
		return err_set(err, ERR_INVAL, 0, "restapi.ciphers: %s", gnutls_strerror(rc));
	gnutls_priority_deinit(cache);
	rc = gnutls_certificate_allocate_credentials(&cred);
	if (rc < 0)
		return err_set(err, ERR_NOMEM, 0, "TLS: %s", gnutls_strerror(rc));
	const char *what = "certfile";
	rc = gnutls_certificate_set_x509_key_mem2(
		cred, &cert, &key, GNUTLS_X509_FMT_PEM, s->keyfile_password, 0);
	if (rc >= 0 && f->trust.len > 0) {
		what = "cafile";
		rc = gnutls_certificate_set_x509_trust_mem(cred, &trust, GNUTLS_X509_FMT_PEM);
		rc = rc == 0 ? GNUTLS_E_NO_CERTIFICATE_FOUND : rc;
	}
	gnutls_certificate_free_credentials(cred);
	if (rc < 0)
		return err_set(err, ERR_INVAL, 0, "restapi.%s: %s", what, gnutls_strerror(rc));
	return ERR_OK;
}

/* ---- ciphers ------------------------------------------------------------------------------------
 */

enum kx { KX_ECDHE_ECDSA, KX_ECDHE_RSA, KX_DHE_RSA, KX_RSA, KX_COUNT };
enum bulk { AES256_GCM, CHACHA20, AES128_GCM, AES256_CBC, AES128_CBC, BULK_COUNT };

/* A set of suites: bit kx * BULK_COUNT + bulk. The MAC follows from the cipher. */
#define SUITE(k, b) (1u << ((k)*BULK_COUNT + (b)))
#define ALL_SUITES  ((1u << (KX_COUNT * BULK_COUNT)) - 1)

static const char *const kx_names[] = { "ECDHE-ECDSA", "ECDHE-RSA", "DHE-RSA", "RSA" };
static const char *const bulk_names[] = { "AES-256-GCM", "CHACHA20-POLY1305", "AES-128-GCM",
	"AES-256-CBC", "AES-128-CBC" };

static uint32_t by_kx(unsigned kxs)
{
	uint32_t set = 0;
	for (unsigned k = 0; k < KX_COUNT; k++) {
		for (unsigned b = 0; b < BULK_COUNT; b++)
			set |= (kxs >> k & 1) != 0 ? SUITE(k, b) : 0;
	}
	return set;
}

static uint32_t by_bulk(unsigned bulks)
{
	uint32_t set = 0;
	for (unsigned k = 0; k < KX_COUNT; k++) {
		for (unsigned b = 0; b < BULK_COUNT; b++)
			set |= (bulks >> b & 1) != 0 ? SUITE(k, b) : 0;
	}
	return set;
}

#define K(x) (1u << KX_##x)
#define B(x) (1u << (x))

/* What one word means. False: not known. */
static bool word_set(const char *word, bool in_suite_name, uint32_t *out)
{
	static const struct {
		const char *word;
		unsigned kx, bulk; /* 0 = any */
	} known[] = {
		{ "ECDHE", K(ECDHE_ECDSA) | K(ECDHE_RSA), 0 },
		{ "EECDH", K(ECDHE_ECDSA) | K(ECDHE_RSA), 0 },
		{ "kECDHE", K(ECDHE_ECDSA) | K(ECDHE_RSA), 0 },
		{ "kEECDH", K(ECDHE_ECDSA) | K(ECDHE_RSA), 0 },
		{ "DHE", K(DHE_RSA), 0 },
		{ "EDH", K(DHE_RSA), 0 },
		{ "kDHE", K(DHE_RSA), 0 },
		{ "kEDH", K(DHE_RSA), 0 },
		{ "kRSA", K(RSA), 0 },
		{ "aRSA", K(ECDHE_RSA) | K(DHE_RSA) | K(RSA), 0 },
		{ "ECDSA", K(ECDHE_ECDSA), 0 },
		{ "aECDSA", K(ECDHE_ECDSA), 0 },
		{ "AESGCM", 0, B(AES256_GCM) | B(AES128_GCM) },
		{ "AES", 0, B(AES256_GCM) | B(AES128_GCM) | B(AES256_CBC) | B(AES128_CBC) },
		{ "AES256", 0, B(AES256_GCM) | B(AES256_CBC) },
		{ "AES128", 0, B(AES128_GCM) | B(AES128_CBC) },
		{ "CHACHA20", 0, B(CHACHA20) },
		{ "GCM", 0, B(AES256_GCM) | B(AES128_GCM) },
		{ "POLY1305", 0, B(CHACHA20) },
		{ "SHA1", 0, B(AES256_CBC) | B(AES128_CBC) },
		{ "SHA", 0, B(AES256_CBC) | B(AES128_CBC) },
		{ "ALL", 0, 0 },
		{ "DEFAULT", 0, 0 },
		{ "HIGH", 0, 0 },
		{ "TLSv1.2", 0, 0 },
		{ "FIPS", 0, B(AES256_GCM) | B(AES128_GCM) | B(AES256_CBC) | B(AES128_CBC) },
	};
	/* Groups of which we offer nothing anyway: excluding them, or asking for them, changes
	 * nothing. */
	static const char *const nothing[] = { "aNULL", "eNULL", "NULL", "COMPLEMENTOFALL",
		"COMPLEMENTOFDEFAULT", "EXP", "EXPORT", "LOW", "MEDIUM", "MD5", "RC4", "RC2", "DES",
		"3DES", "IDEA", "SEED", "CAMELLIA", "CAMELLIA128", "CAMELLIA256", "ARIA", "ARIA128",
		"ARIA256", "ARIAGCM", "PSK", "kPSK", "aPSK", "SRP", "kSRP", "DSS", "aDSS", "ADH",
		"AECDH", "KRB5", "AESCCM", "AESCCM8", "SSLv2", "SSLv3", "TLSv1", "kDH", "kECDH",
		"aDH", "aECDH", "DH", "ECDH", "GOST", "kGOST", "aGOST" };
	if (strcmp(word, "RSA") == 0) {
		*out = by_kx(in_suite_name ? K(ECDHE_RSA) | K(DHE_RSA) | K(RSA) : K(RSA));
		return true;
	}
	/* In the name of a suite they name the MAC or hash, which follows from the cipher. */
	if (in_suite_name && (strcmp(word, "SHA256") == 0 || strcmp(word, "SHA384") == 0)) {
		*out = ALL_SUITES;
		return true;
	}
	for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
		if (strcmp(word, known[i].word) == 0) {
			*out = (known[i].kx != 0 ? by_kx(known[i].kx) : ALL_SUITES) &
			       (known[i].bulk != 0 ? by_bulk(known[i].bulk) : ALL_SUITES);
			return true;
		}
	}
	for (unsigned i = 0; i < ARRAY_LEN(nothing); i++) {
		if (strcmp(word, nothing[i]) == 0) {
			*out = 0;
			return true;
		}
	}
	return false;
}

/* "A+B", or the name of a suite with '-'. */
static bool item_set(const char *item, uint32_t *out)
{
	uint32_t set = ALL_SUITES;
	bool suite = strchr(item, '-') != NULL;
	bool has_kx = str_starts(item, "ECDHE-") || str_starts(item, "DHE-");
	bool gcm = strstr(item, "GCM") != NULL;
	const char *p = item;
	while (*p != '\0') {
		char word[32];
		uint32_t one;
		size_t n = strcspn(p, suite ? "-" : "+");
		if (!str_copy_n(word, sizeof(word), p, n) || !word_set(word, suite, &one))
			return false;
		set &= one;
		p += n + (p[n] != '\0');
	}
	if (suite && !has_kx)
		set &= by_kx(K(RSA));
	if (suite && !gcm)
		set &= by_bulk(B(CHACHA20) | B(AES256_CBC) | B(AES128_CBC));
	*out = set;
	return true;
}

static enum err_code apply(const char *list, uint32_t *out, struct err *err)
{
	uint32_t set = 0, killed = 0;
	const char *p = list;
	while (*p != '\0') {
		char item[80];
		uint32_t one;
		size_t n = strcspn(p, ":, ");
		if (!str_copy_n(item, sizeof(item), p, n))
			return err_set(
				err, ERR_LIMIT, 0, "restapi.ciphers: a word of %zu bytes", n);
		p += n + (p[n] != '\0');
		if (item[0] == '\0' || item[0] == '@')
			continue; /* order and security level are GnuTLS's own */
		char sign = item[0];
		const char *name = sign == '!' || sign == '-' || sign == '+' ? item + 1 : item;
		if (!item_set(name, &one))
			return err_set(err, ERR_INVAL, 0,
				"restapi.ciphers: \"%s\" is not known; allowed are OpenSSL's suite "
				"names "
				"and words such as HIGH, ECDHE+AESGCM, !SHA1",
				name);
		if (sign == '!') {
			killed |= one;
			set &= ~one;
		} else if (sign == '-') {
			set &= ~one;
		} else if (sign != '+') { /* + only moves to the end */
			set |= one & ~killed;
		}
	}
	if (set == 0)
		return err_set(
			err, ERR_INVAL, 0, "restapi.ciphers \"%s\": no cipher is left", list);
	*out = set;
	return ERR_OK;
}

enum err_code tls_priorities(
	const char *ciphers, char out[static TLS_PRIORITIES_MAX], struct err *err)
{
	AUTO(buf) b = BUF_INIT(TLS_PRIORITIES_MAX - 1);
	uint32_t set = 0;
	if (ciphers == NULL || ciphers[0] == '\0') {
		snprintf(out, TLS_PRIORITIES_MAX, "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2");
		return ERR_OK;
	}
	enum err_code rc = apply(ciphers, &set, err);
	if (rc != ERR_OK)
		return rc;
	buf_adds(&b, "NONE:+VERS-TLS1.3:+VERS-TLS1.2:+COMP-NULL:+SIGN-ALL:+GROUP-ALL:+CTYPE-X509"
		     ":+AEAD");
	for (unsigned k = 0; k < KX_COUNT; k++) {
		if ((set & by_kx(1u << k)) != 0)
			buf_addf(&b, ":+%s", kx_names[k]);
	}
	for (unsigned c = 0; c < BULK_COUNT; c++) {
		if ((set & by_bulk(1u << c)) != 0)
			buf_addf(&b, ":+%s", bulk_names[c]);
	}
	if ((set & by_bulk(B(AES256_CBC) | B(AES128_CBC))) != 0)
		buf_adds(&b, ":+SHA384:+SHA256:+SHA1");
	/* TLS 1.3 needs one of its own ciphers. */
	if ((set & by_bulk(B(AES256_GCM) | B(AES128_GCM) | B(CHACHA20))) == 0)
		buf_adds(&b, ":+AES-256-GCM:+AES-128-GCM");
	if (b.failed || !str_copy(out, TLS_PRIORITIES_MAX, buf_str(&b)))
		return err_set(err, ERR_LIMIT, 0, "restapi.ciphers: too long");
	return ERR_OK;
}
