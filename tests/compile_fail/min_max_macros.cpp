// SPDX-License-Identifier: Apache-2.0
// Macros called min and max, as <windows.h> defines them, are named once.
// expect: define NOMINMAX before <windows.h>
// errors: 2
#ifdef LARQL_FORBIDDEN
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#endif

#include <larql/gguf.hpp>
