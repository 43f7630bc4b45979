/* Errors as values: a code for the program, one line of text for a human. Libc only. */
#pragma once
#include <stdarg.h>

#define MUST_USE     __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

enum err_code {
	ERR_OK = 0,
	ERR_SYS,      /* a system call failed; sys_errno says how */
	ERR_NOMEM,    /* no memory */
	ERR_LIMIT,    /* a bound of limits.h was reached */
	ERR_PARSE,    /* input that cannot be understood */
	ERR_PROTO,    /* a peer broke the protocol */
	ERR_TIMEOUT,  /* a deadline passed */
	ERR_STATE,    /* not possible in the present state */
	ERR_NOTFOUND, /* the thing named does not exist */
	ERR_DENIED,   /* refused: permission, authentication */
	ERR_CONFLICT, /* compare-and-swap lost */
	ERR_UNKNOWN,  /* a remote write without an answer: it may have happened */
	ERR_INVAL,    /* a value that is not allowed */
	ERR_AGAIN,    /* would block; try when the descriptor is ready */
	ERR_CLOSED,   /* the peer closed the connection */
};

struct err {
	enum err_code code;
	int sys_errno;
	char text[480];
};

#define ERR_INIT                                                                                   \
	{                                                                                          \
		.code = ERR_OK                                                                     \
	}

/* Fill *err (may be NULL) and return code. With sys_errno != 0 its text is appended. */
enum err_code err_set(struct err *err, enum err_code code, int sys_errno, const char *fmt, ...)
	PRINTF(4, 5);
/* Put "<text>: " before the present text; returns the code that is already there. */
enum err_code err_wrap(struct err *err, const char *fmt, ...) PRINTF(2, 3);
/* A constant word for a code, "sys", "limit", ... */
const char *err_code_name(enum err_code code);
