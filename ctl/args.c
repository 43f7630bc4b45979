/* See args.h. */
#include "common/core/buf.h"
#include "common/core/str.h"
#include "ctl/args.h"

#include <string.h>

static const struct opt *find_long(const struct opt *opts, const char *name, size_t len)
{
	for (const struct opt *o = opts; o->name != NULL; o++) {
		if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
			return o;
		if (o->alias != NULL && strlen(o->alias) == len &&
			strncmp(o->alias, name, len) == 0)
			return o;
	}
	return NULL;
}

static const struct opt *find_letter(const struct opt *opts, char letter)
{
	for (const struct opt *o = opts; o->name != NULL; o++)
		if (o->letter != '\0' && o->letter == letter)
			return o;
	return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
	size_t len = strlen(value);
	for (const char *p = choices; *p != '\0';) {
		size_t n = strcspn(p, "|");
		if (n == len && strncmp(p, value, n) == 0)
			return true;
		p += n + (p[n] == '|');
	}
	return false;
}

static enum err_code not_a_choice(const struct opt *o, const char *value, struct err *err)
{
	AUTO(buf) list = BUF_INIT(500);
	char letter[16] = "";
	for (const char *p = o->choices; *p != '\0';) {
		size_t n = strcspn(p, "|");
		buf_addf(&list, "%s'%.*s'", list.len > 0 ? ", " : "", (int)n, p);
		p += n + (p[n] == '|');
	}
	if (o->letter != 0 && !str_format(letter, sizeof(letter), " / '-%c'", o->letter))
		letter[0] = '\0';
	return err_set(err, ERR_INVAL, 0, "Invalid value for '--%s'%s: '%s' is not one of %s.",
		o->name, letter, value, buf_str(&list));
}

static enum err_code add(struct args *a, const struct opt *o, const char *value, struct err *err)
{
	if (value != NULL && o->choices != NULL && !is_choice(o->choices, value))
		return not_a_choice(o, value, err);
	if (a->given_count == ARGS_GIVEN_MAX)
		return err_set(err, ERR_INVAL, 0, "More than %d options.", ARGS_GIVEN_MAX);
	a->given[a->given_count].opt = o;
	a->given[a->given_count++].value = value;
	return ERR_OK;
}

/* The value of an option that stands in the next entry. */
static const char *next_value(int argc, char *const *argv, int *i)
{
	return *i + 1 < argc ? argv[++*i] : NULL;
}

static enum err_code long_option(
	struct args *a, int argc, char *const *argv, int *i, struct err *err)
{
	const char *name = argv[*i] + 2;
	size_t len = strcspn(name, "=");
	const struct opt *o = find_long(a->opts, name, len);
	if (o == NULL)
		return err_set(err, ERR_INVAL, 0, "No such option: --%.*s", (int)len, name);
	const char *value = name[len] == '=' ? name + len + 1 : NULL;
	if (!o->takes_value) {
		if (value != NULL)
			return err_set(
				err, ERR_INVAL, 0, "Option '--%s' does not take a value.", o->name);
		return add(a, o, NULL, err);
	}
	if (value == NULL)
		value = next_value(argc, argv, i);
	if (value == NULL)
		return err_set(err, ERR_INVAL, 0, "Option '--%s' requires an argument.", o->name);
	return add(a, o, value, err);
}

static enum err_code letters(struct args *a, int argc, char *const *argv, int *i, struct err *err)
{
	for (const char *p = argv[*i] + 1; *p != '\0'; p++) {
		const struct opt *o = find_letter(a->opts, *p);
		if (o == NULL)
			return err_set(err, ERR_INVAL, 0, "No such option: -%c", *p);
		if (!o->takes_value) {
			enum err_code rc = add(a, o, NULL, err);
			if (rc != ERR_OK)
				return rc;
			continue;
		}
		const char *value = p[1] != '\0' ? p + 1 : next_value(argc, argv, i);
		if (value == NULL)
			return err_set(err, ERR_INVAL, 0, "Option '-%c' requires an argument.", *p);
		return add(a, o, value, err);
	}
	return ERR_OK;
}

enum err_code args_read(struct args *a, const struct opt *opts, bool first_word, int argc,
	char *const *argv, struct err *err)
{
	memset(a, 0, sizeof(*a));
	a->opts = opts;
	bool words_only = false;
	for (int i = 0; i < argc; i++) {
		enum err_code rc = ERR_OK;
		if (!words_only && strcmp(argv[i], "--") == 0) {
			words_only = true;
		} else if (!words_only && strncmp(argv[i], "--", 2) == 0) {
			rc = long_option(a, argc, argv, &i, err);
		} else if (!words_only && argv[i][0] == '-' && argv[i][1] != '\0') {
			rc = letters(a, argc, argv, &i, err);
		} else {
			if (first_word)
				return ERR_OK;
			if (a->word_count == ARGS_WORDS_MAX)
				return err_set(err, ERR_INVAL, 0, "More than %d arguments.",
					ARGS_WORDS_MAX);
			a->words[a->word_count++] = argv[i];
		}
		if (rc != ERR_OK)
			return rc;
		a->consumed = i + 1;
	}
	return ERR_OK;
}

bool args_has(const struct args *a, const char *name)
{
	for (unsigned i = 0; i < a->given_count; i++)
		if (strcmp(a->given[i].opt->name, name) == 0)
			return true;
	return false;
}

const char *args_value(const struct args *a, const char *name)
{
	const char *value = NULL;
	for (unsigned i = 0; i < a->given_count; i++)
		if (strcmp(a->given[i].opt->name, name) == 0)
			value = a->given[i].value;
	return value;
}
