/* Questions to the published snapshot. See snapshot.h. */
#include "api/snapshot.h"

#include "common/core/str.h"

const char *snapshot_leader(const json_t *cluster)
{
	const char *name = json_string_value(json_object_get(cluster, "leader"));
	return name != NULL && name[0] != '\0' ? name : NULL;
}

bool snapshot_is_sync(const json_t *cluster, const char *name)
{
	const json_t *sync = json_object_get(cluster, "sync");
	const char *leader = json_string_value(json_object_get(sync, "leader"));
	size_t i;
	json_t *voter;
	/* Without a leader the key is empty: synchronous replication is not set up. */
	if (leader == NULL || leader[0] == '\0' || name == NULL)
		return false;
	json_array_foreach(json_object_get(sync, "voters"), i, voter)
	{
		if (json_is_string(voter) && str_eq_nocase(json_string_value(voter), name))
			return true;
	}
	return false;
}

const json_t *snapshot_member(const json_t *cluster, const char *name)
{
	size_t i;
	json_t *m;
	json_array_foreach(json_object_get(cluster, "members"), i, m)
	{
		if (str_eq(json_string_value(json_object_get(m, "name")), name))
			return json_object_get(m, "data");
	}
	return NULL;
}
