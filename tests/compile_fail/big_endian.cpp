// SPDX-License-Identifier: Apache-2.0
// A machine whose numbers lie the other way round than the files' is named once.
// forbidden flags: -U__BYTE_ORDER__;-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__
// expect: larql reads little-endian files on little-endian machines
// errors: 2
#include <larql/gguf.hpp>
