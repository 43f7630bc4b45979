/* pgregent-files --log-writer: a process of its own that writes the log file of log.dir
 * (config 1.2). A full or stalled disk stops this process alone: its clients send without waiting.
 */
#pragma once
#include "common/core/err.h"

/* argv: --log-writer SOCKET DIR FILE_SIZE FILE_NUM MODE (-1 = by umask). Binds the socket, goes
 * into the background and returns there; the caller's process ends with the status once the socket
 * is bound. The background process ends when its socket was replaced, or when nobody has been
 * connected for a while. */
int logwriter_main(int argc, char **argv);

#define LOGWRITER_NAME "patroni.log"
