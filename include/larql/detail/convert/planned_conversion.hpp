// SPDX-License-Identifier: Apache-2.0
//
// A conversion as conversion holds it: what is made of what, and where it goes.
#ifndef LARQL_DETAIL_CONVERT_PLANNED_CONVERSION_HPP
#define LARQL_DETAIL_CONVERT_PLANNED_CONVERSION_HPP

#include <larql/checkpoint.hpp>
#include <larql/container.hpp>
#include <larql/convert.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/convert/conversion_plan.hpp>
#include <larql/detail/convert/converted_config.hpp>
#include <larql/detail/convert/fingerprint.hpp>
#include <larql/detail/convert/gguf_model_metadata.hpp>
#include <larql/detail/convert/gguf_own_metadata.hpp>
#include <larql/detail/convert/gguf_rope_rows.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/layout_vindex.hpp>
#include <larql/detail/convert/measure.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/convert/read_back.hpp>
#include <larql/detail/convert/run.hpp>
#include <larql/detail/convert/target.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace larql::detail {

/// @throws error errc::unsupported_architecture for a family that larql does not write as llama.cpp's converter does
inline void require_gguf_output(const checkpoint& source) {
    const gguf_output_rule& rule = source.family().gguf_output;
    if (rule.written) return;
    std::string sentence = "larql does not write GGUF of \"" + std::string(source.family().name) + "\"";
    if (!rule.why_not.empty()) (sentence += ": ") += rule.why_not;
    fail(errc::unsupported_architecture, sentence, {.file = source.shard_path(0)});
}

/// The options, held against the source.
inline conversion_scope scope_of(const checkpoint& source, const conversion_options& options) {
    const model_config& model = source.config();
    conversion_scope scope{.form = options.form,
                           .kind = options.to,
                           .general = options.type,
                           .attention = options.attention_type ? options.attention_type : options.type,
                           .block_begin = std::max(options.layer_begin, model.block_begin),
                           .block_end = std::min(options.layer_end, model.block_end),
                           .split_kv_b = options.split_kv_b && !source.family().gguf_output.whole_kv_b};
    require_writable_type(options.to, scope.general, "dtype");
    require_writable_type(options.to, scope.attention, "attn-dtype");
    if (scope.block_begin >= scope.block_end)
        fail(errc::bad_value,
             concat({"expected blocks within ", model.block_begin, " to ", model.block_end, ", got ",
                     options.layer_begin, " to ", std::min(options.layer_end, model.blocks.size())}),
             {.subject = "layers"});
    scope.whole = scope.block_begin == 0 && scope.block_end == model.blocks.size();
    if (scope.published_gguf() && !source.has_gguf_names()) require_gguf_output(source);
    // llama.cpp's converter makes float32 of vectors whatever they were; they become what the matrices are again.
    if (source.has_gguf_names() && !scope.published_gguf()) scope.of_vectors = most_of_matrices(source);
    const bool parts = options.part <= options.parts && (options.join || (options.part == 0) == (options.parts == 0));
    if (!parts)
        fail(errc::bad_value, concat({"expected a number from 1 to ", options.parts, ", got ", options.part}),
             {.subject = "part"});
    return scope;
}

struct planned_conversion {
    checkpoint source;
    conversion_options options;
    conversion_scope scope;
    conversion_target target;
    conversion_plan plan;
    conversion_layout layout{};
    std::vector<std::pair<std::string, std::filesystem::path>> carried{};  ///< files beside the weights, by new name

    planned_conversion(checkpoint from, const std::filesystem::path& to, conversion_options given)
        : source(std::move(from)),
          options(std::move(given)),
          scope(scope_of(source, options)),
          target(to, options.to),
          plan(conversion_planner(source, scope).plan()) {
        lay_out();
    }

    void lay_out() {
        if (options.to == container::gguf) return lay_out_as_gguf();
        const nlohmann::json described = config();
        if (options.to == container::vindex) {
            layout = vindex_builder(source, scope, plan.rows, described).build(plan.warnings);
        } else {
            layout = lay_out_safetensors(plan.rows, options.shard_bytes);
            layout.texts.push_back({"config.json", described.dump(2) + "\n", {}});
        }
        carried = files_beside(source);
        for (planned_text& text : texts_of_gguf(source)) layout.texts.insert(layout.texts.begin(), std::move(text));
    }

    void lay_out_as_gguf() {
        gguf_metadata metadata;
        if (scope.published_gguf()) {
            for (conversion_row& row : gguf_rope_rows(source)) plan.rows.push_back(std::move(row));
            gguf_model_metadata described(source, scope, plan.rows);
            metadata = described.make();
            plan.warnings.insert(plan.warnings.end(), described.warnings().begin(), described.warnings().end());
        } else {
            metadata = own_metadata(source, scope, config());
        }
        if (scope.published_gguf()) {
            const auto whole = lay_out_gguf(plan.rows, metadata, target.gguf_name, UINT64_MAX);
            require_reads_back(source, whole.files.front(), plan.rows);
        }
        layout = lay_out_gguf(plan.rows, std::move(metadata), target.gguf_name, options.shard_bytes);
    }

    [[nodiscard]] nlohmann::json config() const {
        std::optional<dtype> stated = scope.general;
        if (!stated) stated = scope.of_vectors;
        return convert_config(source, scope, stated, plan.keeps_quantisation);
    }

    [[nodiscard]] std::vector<conversion::file> files() const {
        std::vector<conversion::file> all;
        for (const planned_file& f : layout.files) all.push_back({f.name, f.size_bytes, f.tensors.size()});
        for (const planned_text& text : layout.texts) all.push_back({text.name, text.content.size(), 0});
        for (const auto& [name, path] : carried) {
            std::error_code unknown;
            const auto size = std::filesystem::file_size(path, unknown);
            all.push_back({name, unknown ? 0 : size, 0});
        }
        return all;
    }

    void run() {
        serial_executor serial;
        conversion_order order;
        order.folder = target.folder;
        order.journal_name = target.journal_name;
        order.rows = plan.rows;
        order.layout = &layout;
        order.carried = carried;
        order.plan_print = plan_fingerprint(source, scope, plan.rows, layout);
        order.source_print = source_fingerprint(source);
        order.part = {options.part, options.parts, options.join};
        order.resume = options.resume;
        order.sync_seconds = options.sync_seconds;
        order.progress = options.progress;
        std::vector<std::string> names;
        for (const conversion::file& f : files()) names.push_back(f.name);
        refuse_source(source, target, options.to, names);
        order.find_old_files = [&] { return old_files(target, options.to, names, options.replace); };
        conversion_run(order, options.threads != nullptr ? *options.threads : serial).run();
    }
};

}  // namespace larql::detail

#endif
