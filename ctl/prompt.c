/* Questions on the terminal, or to whatever feeds standard input (ctl 4.5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "common/core/str.h"
#include "ctl/ctl.h"

#define ASK_MAX 100 /* a stream of nonsense is not a user */

static bool read_line(char *out, size_t out_len)
{
	char line[1024];
	(void)fflush(stdout);
	if (fgets(line, sizeof(line), stdin) == NULL) {
		(void)fputs("Aborted!\n", stderr);
		exit(1);
	}
	line[strcspn(line, "\r\n")] = '\0';
	return str_copy(out, out_len, line);
}

void prompt_text(const char *text, const char *def, char *out, size_t out_len)
{
	for (int i = 0; i < ASK_MAX; i++) {
		if (def != NULL)
			printf("%s [%s]: ", text, def);
		else
			printf("%s: ", text);
		if (!read_line(out, out_len))
			continue;
		if (out[0] != '\0')
			return;
		if (def != NULL && str_copy(out, out_len, def))
			return;
	}
	fail("No usable answer");
}

void prompt_hidden(const char *text, char *out, size_t out_len)
{
	struct termios shown, hidden;
	bool terminal = tcgetattr(STDIN_FILENO, &shown) == 0;
	if (terminal) {
		hidden = shown;
		hidden.c_lflag &= ~(tcflag_t)ECHO;
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
	}
	printf("%s: ", text);
	bool ok = read_line(out, out_len);
	if (terminal) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
		printf("\n");
	}
	if (!ok)
		fail("No usable answer");
}

static void strip(char *text)
{
	size_t start = strspn(text, " \t"), n = strlen(text + start);
	while (n > 0 && (text[start + n - 1] == ' ' || text[start + n - 1] == '\t'))
		n--;
	memmove(text, text + start, n);
	text[n] = '\0';
}

bool prompt_confirm(const char *text)
{
	for (int i = 0; i < ASK_MAX; i++) {
		char answer[64];
		printf("%s [y/N]: ", text);
		if (!read_line(answer, sizeof(answer)))
			continue;
		strip(answer);
		if (str_eq_nocase(answer, "y") || str_eq_nocase(answer, "yes"))
			return true;
		if (answer[0] == '\0' || str_eq_nocase(answer, "n") || str_eq_nocase(answer, "no"))
			return false;
		printf("Error: invalid input\n");
	}
	return false;
}

void put_copy(char *dst, size_t dst_len, const char *src)
{
	if (!str_copy(dst, dst_len, src))
		fail("Longer than %zu bytes: %s", dst_len - 1, src);
}

void put_format(char *dst, size_t dst_len, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(dst, dst_len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= dst_len)
		fail("Longer than %zu bytes: %s", dst_len - 1, dst);
}
