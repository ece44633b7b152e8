// SPDX-License-Identifier: Apache-2.0
//
// Whether a GGUF header says what the model is: it is read as anybody will read it, and held against the source. What
// GGUF has no words for is found here, whatever it is, before anything is written.
#ifndef LARQL_DETAIL_CONVERT_READ_BACK_HPP
#define LARQL_DETAIL_CONVERT_READ_BACK_HPP

#include <larql/attention_spec.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/concat.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/io/owned_file.hpp>
#include <larql/error.hpp>
#include <larql/model_config.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace larql::detail {

/// As near as float32 metadata come.
inline bool nearly(double a, double b) { return std::abs(a - b) <= 1e-6 * std::max(std::abs(a), std::abs(b)); }

inline bool same_norm(const norm_spec& a, const norm_spec& b) {
    return a.kind == b.kind && (a.kind == norm_kind::none ||
                                (a.per_head == b.per_head && a.own_gains == b.own_gains && a.has_gain == b.has_gain &&
                                 a.has_bias == b.has_bias && a.after_rope == b.after_rope && nearly(a.eps, b.eps)));
}

/// Rotation at the context that the model was trained for, and far beyond it.
inline bool same_rotation(const rope_config& a, const rope_config& b) {
    if (a.rotary_dim != b.rotary_dim) return false;
    for (const double length : {1.0, 65536.0, 16777216.0}) {
        const rope_table x = make_rope_table(a, length), y = make_rope_table(b, length);
        if (!nearly(x.magnitude, y.magnitude) ||
            !std::ranges::equal(x.frequencies, y.frequencies,
                                [](double p, double q) { return std::abs(p - q) <= 1e-5 * std::abs(q); }))
            return false;
    }
    return true;
}

/// What differs between two descriptions of one block, or "". Orders of rows and stored forms do not count.
inline std::string_view difference(const attention_spec& a, const attention_spec& b) {
    const mla_geometry &g = a.geometry, &h = b.geometry;
    if (a.kv_layer != b.kv_layer || a.shares_latents != b.shares_latents) return "keys of another block";
    if (a.kind != b.kind || a.layer != b.layer || a.part != b.part) return "kind or place";
    if (g.hidden_size != h.hidden_size || a.input_width() != b.input_width() || g.num_heads != h.num_heads ||
        g.kv_heads() != h.kv_heads() || g.q_lora_rank != h.q_lora_rank || g.kv_lora_rank != h.kv_lora_rank ||
        g.qk_nope_head_dim != h.qk_nope_head_dim || g.qk_rope_head_dim != h.qk_rope_head_dim ||
        g.v_head_dim != h.v_head_dim)
        return "sizes";
    if (!same_rotation(a.rope, b.rope)) return "rotary embedding";
    if (!nearly(a.scale, b.scale)) return "softmax scale";
    if (a.sliding_window != b.sliding_window || a.chunk != b.chunk) return "window";
    if (!nearly(a.softcap, b.softcap) || !nearly(a.clip, b.clip)) return "softcap or clipping";
    if (!nearly(a.alibi, b.alibi)) return "biases of distance";
    if (!nearly(a.value_scale, b.value_scale)) return "scale of values";
    if (a.sinks != b.sinks || a.gate != b.gate || a.gated_by != b.gated_by || a.value_is_key != b.value_is_key)
        return "sinks, gate or values";
    if (!nearly(a.temperature.scale, b.temperature.scale) || a.temperature.logarithmic != b.temperature.logarithmic ||
        a.temperature.per_head != b.temperature.per_head ||
        (a.temperature.scale != 0.0 &&
         (!nearly(a.temperature.length, b.temperature.length) || !nearly(a.temperature.offset, b.temperature.offset))))
        return "temperature of queries";
    if (!same_norm(a.q_norm, b.q_norm) || !same_norm(a.k_norm, b.k_norm) || !same_norm(a.v_norm, b.v_norm) ||
        !same_norm(a.latent_norm, b.latent_norm) || !same_norm(a.k_rope_norm, b.k_rope_norm))
        return "norms";
    if (!nearly(a.q_latent_scale, b.q_latent_scale) || !nearly(a.kv_latent_scale, b.kv_latent_scale))
        return "scales of latents";
    if (a.indexer.top_k != b.indexer.top_k || a.indexer.heads != b.indexer.heads || a.indexer.pool != b.indexer.pool ||
        a.indexer.head_dim != b.indexer.head_dim || a.indexer.shared != b.indexer.shared ||
        a.indexer.from_input != b.indexer.from_input || a.indexer.per_head != b.indexer.per_head)
        return "indexer";
    return "";
}

/// Reads a laid-out GGUF file as a file with no numbers.
/// @param file  a layout of the whole model in one file
/// @param rows  where the tensors come from that describe the model by their numbers: rope_freqs
/// @throws error errc::unsupported_architecture naming what it cannot say; what the reader says of the header
inline void require_reads_back(const checkpoint& source, const planned_file& file,
                               std::span<const conversion_row> rows) {
    static std::atomic<unsigned> count = 0;
    std::error_code unknown;
    std::filesystem::path path = std::filesystem::temp_directory_path(unknown);
    if (unknown) path = ".";
    path /= concat({"larql-header-", process_number(), "-", count++, ".gguf"});
    struct removed_later {
        const std::filesystem::path& path;
        ~removed_later() {
            std::error_code ignored;
            std::filesystem::remove(path, ignored);
        }
    } const guard{path};
    owned_file out(path, owned_file::how::anew);
    out.resize(file.size_bytes);  // a hole: takes no space
    out.write(0, std::as_bytes(std::span(file.header)));
    for (const tensor_info& info : file.tensors) {
        if (info.name.starts_with("blk.") || info.name.ends_with("_embd.weight") || info.shape.size() != 1) continue;
        const auto row = std::ranges::find(
            rows, info.name, [](const conversion_row& r) -> std::string_view { return r.tensors.front().name; });
        std::vector<std::byte> bytes(static_cast<std::size_t>(info.size_bytes));
        row->rows(0, 1, bytes);
        out.write(info.offset, bytes);
    }
    out.close();
    const checkpoint read = checkpoint::open(path);
    const model_config &published = source.config(), &found = read.config();
    const auto refuse = [&](const std::string& what) {
        fail(errc::unsupported_architecture, "GGUF has no words for what this model has: " + what,
             {.file = source.shard_path(0)});
    };
    if (published.blocks.size() != found.blocks.size())
        refuse(concat({published.blocks.size(), " attention blocks, it would read ", found.blocks.size()}));
    if (published.hidden_size != found.hidden_size || published.num_hidden_layers != found.num_hidden_layers ||
        published.vocab_size != found.vocab_size)
        refuse("its width, layers or vocabulary");
    if (!nearly(published.rms_norm_eps, found.rms_norm_eps)) refuse("the eps of its norms");
    for (std::size_t block = 0; block < found.blocks.size(); ++block) {
        const std::string_view what = difference(published.blocks[block], found.blocks[block]);
        if (!what.empty()) refuse(concat({"the ", what, " of attention block ", block}));
    }
}

}  // namespace larql::detail

#endif
