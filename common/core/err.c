/* Errors as values. See err.h. */
#include "common/core/err.h"

#include <stdio.h>
#include <string.h>

enum err_code err_set(struct err *err, enum err_code code, int sys_errno, const char *fmt, ...)
{
	if (err == NULL)
		return code;
	char text[sizeof(err->text)];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(text) && sys_errno != 0)
		snprintf(text + n, sizeof(text) - (size_t)n, ": %s", strerror(sys_errno));
	err->code = code;
	err->sys_errno = sys_errno;
	memcpy(err->text, text, sizeof(text));
	return code;
}

enum err_code err_wrap(struct err *err, const char *fmt, ...)
{
	if (err == NULL)
		return ERR_OK;
	char text[sizeof(err->text)];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(text))
		snprintf(text + n, sizeof(text) - (size_t)n, ": %s", err->text);
	memcpy(err->text, text, sizeof(text));
	return err->code;
}

const char *err_code_name(enum err_code code)
{
	static const char *const names[] = { "ok", "sys", "nomem", "limit", "parse", "proto",
		"timeout", "state", "notfound", "denied", "conflict", "unknown", "inval", "again",
		"closed" };
	return (unsigned)code < ARRAY_LEN(names) ? names[code] : "?";
}
