// SPDX-License-Identifier: Apache-2.0
//
// All of larql. A program that uses a part compiles faster with the headers of that part alone.
#ifndef LARQL_LARQL_HPP
#define LARQL_LARQL_HPP

#include <larql/amx.hpp>
#include <larql/attention_batch.hpp>
#include <larql/attention_cost.hpp>
#include <larql/attention_form.hpp>
#include <larql/attention_layer.hpp>
#include <larql/attention_part.hpp>
#include <larql/attention_plan.hpp>
#include <larql/attention_spec.hpp>
#include <larql/attention_weights.hpp>
#include <larql/checkpoint.hpp>
#include <larql/container.hpp>
#include <larql/convert.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/ggml_blocks.hpp>
#include <larql/gguf.hpp>
#include <larql/gguf_writer.hpp>
#include <larql/gqa_attention.hpp>
#include <larql/key_selection.hpp>
#include <larql/kv_cache.hpp>
#include <larql/linear.hpp>
#include <larql/mapped_file.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/model_config.hpp>
#include <larql/model_family.hpp>
#include <larql/model_key.hpp>
#include <larql/openblas.hpp>
#include <larql/printable.hpp>
#include <larql/quantization_config.hpp>
#include <larql/rope.hpp>
#include <larql/rope_config.hpp>
#include <larql/rows_view.hpp>
#include <larql/safetensors.hpp>
#include <larql/safetensors_writer.hpp>
#include <larql/tensor_info.hpp>
#include <larql/tensor_recipe.hpp>
#include <larql/tensor_role.hpp>
#include <larql/verify.hpp>
#include <larql/version.hpp>
#include <larql/weight_reader.hpp>
#include <larql/weight_storage.hpp>

#endif
