/* Between the conversation (fuzz_ipc.c) and the receivers (fuzz_ipc_supervisor.c,
 * fuzz_ipc_deadman.c). */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/core/ipc.h"

struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

/* A receiver: started afresh for each input; target_socket is where the sender writes (-1: it is
 * gone), target_event what else happens to it, target_turn one turn of its loop. */
void target_start(void);
void target_turn(void);
void target_event(uint8_t what);
void target_end(void);
int target_socket(void);
enum ipc_role target_role(void);

pid_t fuzz_new_pid(void);
int fuzz_descriptor(void);
void fuzz_drain(int fd);
