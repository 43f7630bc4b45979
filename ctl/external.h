/* Programs of the user: editor and pager. */
#pragma once
#include <stddef.h>

/* $EDITOR, else editor, else vi, on a file; its exit status. Does not return without one. */
int external_edit(const char *file);
/* $PAGER, else less, else more; waits for its end. Does not return without one. */
void external_page(const char *text);
