// SPDX-License-Identifier: Apache-2.0
// An older language mode is named once, not by hundreds of errors.
// forbidden flags: -std=c++17
// expect: larql needs C\+\+20: compile with -std=c\+\+20 or later
// errors: 2
#include <larql/gguf.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/model_config.hpp>
