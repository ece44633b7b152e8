// SPDX-License-Identifier: Apache-2.0
//
// All bodies: for one source file of a program whose other files are compiled with LARQL_SEPARATE. It makes the object
// that larql::compiled is.
#ifndef LARQL_SRC_HPP
#define LARQL_SRC_HPP

#if !defined(LARQL_SEPARATE)
#if defined(LARQL_DETAIL_SEPARATE_HPP)
#error "include <larql/src.hpp> before other headers of larql, or define LARQL_SEPARATE for this file, too"
#endif
#define LARQL_SEPARATE
#endif

#include <larql/detail/bodies/amx.hpp>
#include <larql/detail/bodies/attention_layer.hpp>
#include <larql/detail/bodies/attention_layer_parts.hpp>
#include <larql/detail/bodies/attention_plan.hpp>
#include <larql/detail/bodies/checkpoint.hpp>
#include <larql/detail/bodies/convert.hpp>
#include <larql/detail/bodies/gguf.hpp>
#include <larql/detail/bodies/linear.hpp>
#include <larql/detail/bodies/model_config.hpp>
#include <larql/detail/bodies/quantization_config.hpp>
#include <larql/detail/bodies/safetensors.hpp>
#include <larql/detail/bodies/sharded_tensors.hpp>
#include <larql/detail/bodies/verify.hpp>
#include <larql/detail/bodies/weight_reader.hpp>

#endif
