/* Every bound has a name and a reason. */
#pragma once

#define LIMIT_NAME	   128		 /* member, scope, namespace; with the zero */
#define LIMIT_PATH	   1024		 /* file names that we handle, with the zero */
#define LIMIT_PORTS	   128		 /* of the remote hosts of a standby cluster, with commas */
#define LIMIT_URL	   512		 /* conn_url, api_url */
#define LIMIT_MEMBERS	   128		 /* a larger listing is refused, never cut */
#define LIMIT_SLOTS	   256		 /* slots of one server that we look at */
#define LIMIT_SLOT_NAME	   64		 /* NAMEDATALEN of PostgreSQL */
#define LIMIT_HISTORY	   1024		 /* rows of the history key; the newest are kept */
#define LIMIT_DCS_VALUE	   (1024 * 1024) /* a larger value is treated as unreadable */
#define LIMIT_DCS_TREE	   (16 * 1024 * 1024) /* all keys of a scope in one answer */
#define LIMIT_JSON_DEPTH   32
#define LIMIT_CONFIG_FILE  (4 * 1024 * 1024)
#define LIMIT_IPC_FRAME	   (64 * 1024) /* one message with its tail; jobs fit (DESIGN 3) */
#define LIMIT_IPC_FDS	   4
#define LIMIT_JOBS	   8		 /* at a time (DESIGN 3) */
#define LIMIT_JOB_OUTPUT   (16 * 1024)	 /* ring per job slot: the tail is kept */
#define LIMIT_ARGS	   1024		 /* argv and environment entries of one job */
#define LIMIT_SHM_DOC	   (1024 * 1024) /* one copy of one published document */
#define LIMIT_FDS	   4096
#define LIMIT_API_ANSWER   (4 * 1024 * 1024) /* a configuration as Python prints it */
#define LIMIT_HTTP_BODY	   (4 * 1024 * 1024)
#define LIMIT_PAGE_DOC	   (256 * 1024) /* a document of the worker's page, so a configuration too */
#define LIMIT_CONNINFO	   4096
#define LIMIT_TAGS	   64 /* tags of one member */
#define LIMIT_PLAN_ACTIONS 24 /* actions of one decision */
#define LIMIT_HA_STAGES	   24 /* awaited operations of one decision cycle; then it ends */
#define LIMIT_PEERS	   LIMIT_MEMBERS
#define LIMIT_SYNC_NAMES   LIMIT_MEMBERS
#define LIMIT_LEASE_MS	   300000  /* supervisor refuses a longer lease (DESIGN 2) */
#define LIMIT_ON_STOP_MS   10000   /* before the agent ends; a hung script must not hold it */
#define LIMIT_WORD_MS	   3600000 /* of a failsafe word, whatever its sender asks for */
#define LIMIT_TTL_MIN_MS   3000
