/* --launch and --validate-config. See oneshot.h. */
#include "worker/oneshot.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/config/dynamic.h"
#include "common/config/local.h"
#include "common/config/validate.h"
#include "common/core/limits.h"
#include "common/core/str.h"
#include "common/ext/json.h"
#include "common/ext/yaml.h"

#define FINDINGS_MAX (1024 * 1024)

int oneshot_launch(const char *path)
{
	struct err err = ERR_INIT;
	struct local_config c;
	char cwd[PATH_MAX], dir[LIMIT_PATH];
	if (local_load(&c, path, &err) != ERR_OK || local_check(&c, &err) != ERR_OK) {
		fprintf(stderr, "%s\n", err.text);
		local_done(&c);
		return 1;
	}
	const char *data_dir = json_path_str(c.tree, "postgresql.data_dir");
	bool fits = data_dir[0] == '/'
			    ? str_copy(dir, sizeof(dir), data_dir)
			    : getcwd(cwd, sizeof(cwd)) != NULL &&
				      str_format(dir, sizeof(dir), "%s/%s", cwd, data_dir);
	if (!fits) {
		fprintf(stderr, "postgresql.data_dir %s: longer than %d bytes\n", data_dir,
			LIMIT_PATH - 1);
		local_done(&c);
		return 1;
	}
	printf("data_dir=%s\nscope=%s\nname=%s\n", dir, json_path_str(c.tree, "scope"),
		json_path_str(c.tree, "name"));
	local_done(&c);
	return fflush(stdout) == 0 ? 0 : 1;
}

/* What a start would warn about: the cached dynamic document and contradicting tags (config 6.2).
 */
static void warn(const struct local_config *c)
{
	struct err err = ERR_INIT;
	struct settings s = { 0 };
	char path[LIMIT_PATH];
	const char *dir = json_path_str(c->tree, "postgresql.data_dir");
	if (dir != NULL && str_format(path, sizeof(path), "%s/patroni.dynamic.json", dir) &&
		access(path, R_OK) == 0) {
		json_auto_t *doc = yaml_read_file(path, &err);
		if (doc == NULL || dynamic_settings(doc, c->tree, true, true, &s, &err) != ERR_OK)
			fprintf(stderr, "%s: %s\n", path, err.text);
		settings_done(&s);
	}
	dynamic_warn_tags(json_object_get(c->tree, "tags"));
}

static int print_tree(const json_t *tree)
{
	AUTO(buf) out = BUF_INIT(LIMIT_CONFIG_FILE);
	if (!yaml_write_wide(tree, 80, &out) || fwrite(out.data, 1, out.len, stdout) != out.len ||
		fflush(stdout) != 0) {
		fprintf(stderr, "printing the configuration: %s\n", strerror(errno));
		return 1;
	}
	return 0;
}

int oneshot_validate(const struct options *o)
{
	struct err err = ERR_INIT;
	struct local_config c;
	AUTO(buf) findings = BUF_INIT(FINDINGS_MAX);
	int status = 1;
	if (local_load(&c, o->config, &err) != ERR_OK) {
		fprintf(stderr, "%s\n", err.text);
	} else {
		AUTO(buf) warnings = BUF_INIT(FINDINGS_MAX);
		unsigned count = validate_tree(c.tree, o->ignore_listen_port, &findings, &warnings);
		fputs(buf_str(&warnings), stderr);
		fputs(buf_str(&findings), stderr);
		if (findings.failed)
			fprintf(stderr, "%u findings; more than can be shown\n", count);
		if (count == 0) {
			warn(&c);
			status = o->print ? print_tree(c.tree) : 0;
		}
	}
	local_done(&c);
	return status;
}
