/* A program of the tests: orphans COUNT [BATCH]. Leaves COUNT processes behind that have lost their
 * parent and have ended, BATCH at a time: a parent with BATCH dead children ends, and whoever reaps
 * orphans gets them all at once. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long count = argc > 1 ? strtol(argv[1], NULL, 10) : 0;
	long batch = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
	if (batch < 1)
		return 2;
	for (long left = count; left > 0; left -= batch) {
		pid_t parent = fork();
		if (parent < 0)
			return 1;
		if (parent == 0) {
			for (long i = 0; i < batch && i < left; i++) {
				pid_t child = vfork();
				if (child == 0)
					_exit(0);
				if (child < 0)
					_exit(1);
			}
			_exit(0);
		}
		int status;
		if (waitpid(parent, &status, 0) != parent || status != 0)
			return 1;
	}
	printf("%ld orphans\n", count);
	return 0;
}
