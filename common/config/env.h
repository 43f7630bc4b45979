/* PATRONI_* variables as a configuration tree (config 2). */
#pragma once
#include <jansson.h>

/* The tree of an environment block ("NAME=value" texts, ended with NULL). New reference. */
json_t *env_tree(char **environ_block);
