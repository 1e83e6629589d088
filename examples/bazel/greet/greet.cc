#include "greet/greet.h"

namespace greet {

std::string Greeting(const std::string& name) {
  return "Hello, " + (name.empty() ? "world" : name) + "!";
}

}  // namespace greet
