#include <iostream>

#define PART_LIST(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)

#define DECLARE(n) int part_##n();
PART_LIST(DECLARE)

int main() {
  int sum = 0;
#define ADD(n) sum += part_##n();
  PART_LIST(ADD)
  std::cout << sum << std::endl;
  return sum == PARTS * (PARTS - 1) / 2 ? 0 : 1;
}
