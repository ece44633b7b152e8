// SPDX-License-Identifier: Apache-2.0
//
// The bodies of model_config.hpp.
#ifndef LARQL_DETAIL_BODIES_MODEL_CONFIG_HPP
#define LARQL_DETAIL_BODIES_MODEL_CONFIG_HPP

#include <larql/detail/io/json.hpp>
#include <larql/detail/model/print.hpp>
#include <larql/detail/model/read.hpp>
#include <larql/detail/safetensors/index.hpp>
#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/model_config.hpp>

#include <filesystem>
#include <string_view>

namespace larql {

LARQL_INLINE model_config parse_model_config(const nlohmann::json& config, const error_where& where,
                                             const config_options& options) {
    return detail::finish_json_config(detail::read_json_config(config, where, options), where, options);
}

LARQL_INLINE nlohmann::json parse_config_json(std::string_view text, const error_where& where) {
    return detail::parse_json(text, where, {.drop_deeper = true, .tolerate_non_finite = true});
}

LARQL_INLINE nlohmann::json read_config_json(const std::filesystem::path& path) {
    return parse_config_json(detail::read_text_file(path, detail::max_config_bytes), {.file = detail::path_text(path)});
}

LARQL_INLINE model_config read_model_config(const gguf_file& file, const config_options& options) {
    return detail::finish_gguf_config(detail::read_gguf_config(file, options), file, options);
}

LARQL_INLINE nlohmann::json to_config_json(const gguf_file& file, const config_options& options) {
    const detail::read_config read = detail::read_gguf_config(file, options);
    const model_config model = detail::finish_gguf_config(read, file, options);
    return detail::print_config(read.values, detail::printed_rope(model.blocks), {.file = file.shard_path(0)});
}

}  // namespace larql

#endif
