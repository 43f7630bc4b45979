/* See settings.h. */
#include "common/model/settings.h"

#include <stdlib.h>

void settings_done(struct settings *s)
{
	free(s->permanent);
	free(s->ignore);
	s->permanent = NULL;
	s->ignore = NULL;
	s->permanent_count = s->ignore_count = 0;
}

int64_t settings_fence_margin_ms(int64_t ttl_ms)
{
	return ttl_ms / 20 > 1000 ? ttl_ms / 20 : 1000;
}
