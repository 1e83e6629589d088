#include <stdio.h>

#define NAME2(n) part_##n
#define NAME(n) NAME2(n)

int NAME(PART)() { return snprintf(nullptr, 0, "%*s", PART, ""); }
