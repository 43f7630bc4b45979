/* Checks of single settings for --validate-config (config 6.3): addresses, directories, programs,
 * words. They resolve names, connect and read the file system: for one-shot processes only. */
#pragma once
#include "common/config/schema.h"

#define CHECK(name)                                                                                \
	void check_##name(struct validate *v, const char *path, const json_t *value,               \
		const struct schema_row *row)
CHECK(name);
CHECK(listen);	    /* host:port, nothing may listen there */
CHECK(listen_many); /* h1,h2:port or *:port */
CHECK(reachable);   /* host:port, something must listen there */
CHECK(hosts);	    /* reachable ones: a list, or a text with commas */
CHECK(partners);    /* a list of reachable ones */
CHECK(connect_address);
CHECK(log_format);
CHECK(synchronous_mode);
CHECK(watchdog_mode);
CHECK(pod_ip);
CHECK(ports);
CHECK(http_codes);
CHECK(data_dir);
CHECK(binary);
CHECK(bin_dir);
#undef CHECK
