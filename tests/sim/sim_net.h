/* Links between members, and from members to the store: delay, loss, one-way cuts. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "tests/sim/sim_dcs.h"

#define SIM_STORE  SIM_NODES	   /* the store as an end of a link */
#define SIM_REMOTE (SIM_NODES + 1) /* the primary that a standby cluster follows */
#define SIM_BACKUP (SIM_NODES + 2) /* what replicas can be made from without a leader */
#define SIM_ENDS   (SIM_NODES + 3)

struct sim_net {
	uint8_t cut[SIM_ENDS][SIM_ENDS]; /* [from][to]: how many faults cut it */
	int64_t slow_ms[SIM_ENDS];	 /* added to whatever enters or leaves */
	unsigned loss_per_mille[SIM_ENDS];
	struct {
		int64_t until_ms;
		uint32_t kinds; /* bit per enum dcs_op_kind; 0 = all */
	} held[SIM_NODES];	/* requests to the store that wait in a queue on the way */
};

bool net_open(const struct sim *s, int from, int to);
/* Delay of one message, or -1 when it is lost. */
int64_t net_delay(struct sim *s, int from, int to);
void net_cut(struct sim *s, int from, int to, bool on);
