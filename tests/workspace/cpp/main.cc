#include <iostream>

#define PART_LIST(X) \
  X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) \
  X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17) X(18) X(19)

#define DECLARE(n) int part_##n();
PART_LIST(DECLARE)

int main() {
  int sum = 0;
#define ADD(n) sum += part_##n();
  PART_LIST(ADD)
  std::cout << sum << std::endl;
  return sum == PARTS * (PARTS - 1) / 2 ? 0 : 1;
}
