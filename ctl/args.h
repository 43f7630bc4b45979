/* Command lines as the reference's option parser reads them: options and words may be mixed, "--"
 * ends options, "--name=value", "-nvalue", clustered flags; long names are never abbreviated. Pure.
 */
#pragma once
#include <stdbool.h>

#include "common/core/err.h"

#define ARGS_GIVEN_MAX 128
#define ARGS_WORDS_MAX 160

struct opt {
	char letter;	   /* 0 = none */
	const char *name;  /* without the dashes */
	const char *alias; /* another long name, NULL = none */
	bool takes_value;
	const char *choices; /* "a|b|c", NULL = any text */
	const char *help;
};

struct args {
	const struct opt *opts; /* ended by .name == NULL */
	struct {
		const struct opt *opt;
		const char *value; /* NULL for flags */
	} given[ARGS_GIVEN_MAX];
	unsigned given_count;
	const char *words[ARGS_WORDS_MAX];
	unsigned word_count;
	int consumed; /* entries of argv that were read */
};

/* first_word: stop before the first word (global options). ERR_INVAL with the usage error's text.
 */
MUST_USE enum err_code args_read(struct args *a, const struct opt *opts, bool first_word, int argc,
	char *const *argv, struct err *err);
bool args_has(const struct args *a, const char *name);
/* The last value given; NULL = not given. */
const char *args_value(const struct args *a, const char *name);
