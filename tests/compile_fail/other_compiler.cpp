// SPDX-License-Identifier: Apache-2.0
// A compiler without vector extensions is named once.
// forbidden flags: -U__GNUC__;-U__clang__
// expect: larql needs GCC or Clang
// errors: 2
#include <larql/gguf.hpp>
