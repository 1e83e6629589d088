#include <string>

#define NAME2(n) part_##n
#define NAME(n) NAME2(n)

int NAME(PART)() { return static_cast<int>(std::string(PART, 'x').size()); }
