/* What a TLS listener needs: files read and proven usable, and OpenSSL's cipher words as GnuTLS
 * priorities. Api process. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "api/settings.h"
#include "common/core/buf.h"

#define TLS_PRIORITIES_MAX 1024

struct tls_files {
	struct buf cert, key, trust; /* PEM; trust empty = none */
	uint64_t hash;		     /* of all of them: tells a changed certificate */
};

#define TLS_FILES_INIT                                                                             \
	{                                                                                          \
		.cert = BUF_INIT(1024 * 1024), .key = BUF_INIT(1024 * 1024),                       \
		.trust = BUF_INIT(4 * 1024 * 1024)                                                 \
	}
void tls_files_done(struct tls_files *f);
MUST_USE enum err_code tls_files_read(
	struct tls_files *out, const struct api_settings *s, struct err *err);
/* Certificate and key belong together, the authorities can be read, the priorities are known. */
MUST_USE enum err_code tls_check(const struct tls_files *f, const struct api_settings *s,
	const char *priorities, struct err *err);
/* The list governs TLS 1.2; 1.3 is always offered. NULL or "" = the library's choice. GnuTLS
 * chooses key exchange, cipher and MAC on their own, so a list of single suites may allow their
 * other combinations. A word that is not known is refused by name. */
MUST_USE enum err_code tls_priorities(
	const char *ciphers, char out[static TLS_PRIORITIES_MAX], struct err *err);
