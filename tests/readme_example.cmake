# SPDX-License-Identifier: Apache-2.0
# The example in README.md is examples/attend_checkpoint.cpp, word for word, without its licence line.
file(READ "${ROOT}/README.md" readme)
file(READ "${ROOT}/examples/attend_checkpoint.cpp" example)
string(FIND "${example}" "\n" end)
math(EXPR end "${end} + 1")
string(SUBSTRING "${example}" ${end} -1 example)
string(FIND "${readme}" "```cpp\n${example}```" at)
if(at EQUAL -1)
  message(FATAL_ERROR "README.md does not show examples/attend_checkpoint.cpp as it is")
endif()
