/* What is settled before the loop: arguments, environments, programs, the instance and its run-time
 * directory. */
#pragma once
#include <stdbool.h>

#include "common/core/err.h"
#include "common/core/ipc_msgs.h"
#include "common/core/limits.h"
#include "supervisor/privs.h"

/* Owned by the process struct; read only after launch_instance. The environment arrays are
 * allocated once. */
struct launch {
	const char *user, *data_dir_option, *runtime_dir_option,
		*config;    /* of argv; NULL = not given */
	bool upgrade_check; /* --upgrade-check: say that this program starts, and which messages it
			       speaks */
	char self[LIMIT_PATH];	    /* our executable */
	char libexec[LIMIT_PATH];   /* where the helpers' programs are */
	char data_real[LIMIT_PATH]; /* data_dir without symbolic links, where it exists */
	char data_dir[LIMIT_PATH], scope[LIMIT_NAME], name[LIMIT_NAME];
	char runtime_base[LIMIT_PATH]; /* as the configuration says; "" = not */
	char runtime_dir[LIMIT_PATH];  /* <base>/<scope>.<name> */
	int runtime_fd;
	char **env_worker; /* the start environment without what is for us alone */
	char **env_plain;  /* also without PATRONI_*, KUBERNETES_*: files, api, dead-man, jobs,
			      postmaster */
	char **env_pg;	   /* env_plain with PG_MALLOC_ARENA_MAX as MALLOC_ARENA_MAX */
	char notify_socket[112]; /* NOTIFY_SOCKET, "" = none */
};

enum launch_mode { LAUNCH_RUN, LAUNCH_EXEC_WORKER, LAUNCH_USAGE };

/* argv to struct; LAUNCH_EXEC_WORKER: this call is for pgregent-worker (--validate-config, --help,
 * ...). */
MUST_USE enum launch_mode launch_args(struct launch *l, int argc, char **argv, struct err *err);
MUST_USE enum err_code launch_find_programs(struct launch *l, struct err *err);
MUST_USE enum err_code launch_environment(struct launch *l, const struct privs *p, struct err *err);
/* <libexec>/pgregent-<role>; true when it fits. */
MUST_USE bool launch_program(const struct launch *l, const char *role, char *out, size_t out_len);
/* Ask pgregent-worker --launch, at most 10 s; *out_status = its exit status when it failed.
 * known: its lines from the program before this one (upgrade), NULL = none. */
MUST_USE enum err_code launch_instance(struct launch *l, const struct privs *p, const char *known,
	int *out_status, struct err *err);
/* Choose and make the run-time directory; opened as runtime_fd. Before the capabilities are
 * dropped. */
MUST_USE enum err_code launch_runtime_dir(struct launch *l, const struct privs *p, struct err *err);
