#include <iostream>
#include <string>

#include "greet/greet.h"

namespace {

int Expect(const std::string& got, const std::string& want) {
  if (got == want) return 0;
  std::cerr << "got \"" << got << "\", want \"" << want << "\"" << std::endl;
  return 1;
}

}  // namespace

int main() {
  return Expect(greet::Greeting("Kiln"), "Hello, Kiln!") +
         Expect(greet::Greeting(""), "Hello, world!");
}
