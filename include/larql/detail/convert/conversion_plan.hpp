// SPDX-License-Identifier: Apache-2.0
//
// What a conversion writes: the output tensors in order, each with the work that makes its rows.
#ifndef LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP
#define LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/checkpoint/hf_names.hpp>
#include <larql/detail/checkpoint/tensor_roles.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/mla_geometry.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// A tensor that the conversion will write.
struct planned_tensor {
    std::string name;
    dtype type = dtype::f32;
    std::vector<std::uint64_t> shape;
};

/// Where a job's results go. Rows of one tensor arrive in order; tensors of one job may alternate.
class tensor_sink {
public:
    virtual ~tensor_sink() = default;
    /// Bytes as they are stored.
    virtual void bytes(const std::string& name, std::span<const std::byte> data) = 0;
    /// Numbers that are converted to the tensor's type.
    virtual void numbers(const std::string& name, std::span<const float> values) = 0;
};

/// A unit of work: the tensors that it makes, and how.
struct conversion_job {
    std::vector<planned_tensor> tensors;
    std::function<void(tensor_sink&, executor&)> run;
};

/// Rows are handled in pieces of about this many floats: 16 MiB, far more than a disk wants at once and little memory.
inline constexpr std::size_t piece_floats = std::size_t{4} << 20;
/// Products are made for so many heads that their rows take about this much: enough work for a matrix product.
inline constexpr std::size_t product_floats = std::size_t{64} << 20;

/// Builds the jobs of a conversion to transformers' names.
class conversion_planner {
public:
    conversion_planner(const checkpoint& source, attention_form form, dtype type, std::size_t layer_begin,
                       std::size_t layer_end)
        : m_source(source), m_form(form), m_type(type), m_begin(layer_begin), m_end(layer_end) {}

    [[nodiscard]] std::vector<conversion_job> plan() {
        for (std::size_t block = m_begin; block < m_end; ++block) plan_block(block);
        m_source.gguf() != nullptr ? copy_gguf() : copy_safetensors();
        return std::move(m_jobs);
    }

private:
    [[nodiscard]] static std::string output_name(std::size_t block, attention_role role, std::string_view suffix) {
        return "model.layers." + std::to_string(block) + ".self_attn." + std::string(names_of(role).safetensors) +
               std::string(suffix);
    }

    /// The same block, in the source's own prefix where it has one.
    [[nodiscard]] std::string name_of(std::size_t block, attention_role role,
                                      std::string_view suffix = ".weight") const {
        if (m_source.gguf() != nullptr) return output_name(block, role, suffix);
        return m_source.tensor_name(role, block, suffix);
    }

    void add_matrix(std::string name, std::vector<std::uint64_t> shape, matrix_input<float> rows) {
        conversion_job job;
        job.tensors.push_back({name, m_type, std::move(shape)});
        job.run = [name = std::move(name), rows = std::move(rows)](tensor_sink& sink, executor&) {
            const std::size_t step = std::max<std::size_t>(piece_floats / std::max<std::size_t>(rows.cols(), 1), 1);
            std::vector<float> piece;
            for (std::size_t begin = 0; begin < rows.rows(); begin += step) {
                const std::size_t end = std::min(rows.rows(), begin + step);
                piece.resize((end - begin) * rows.cols());
                rows.read_rows(begin, end, piece.data(), rows.cols());
                sink.numbers(name, piece);
            }
        };
        m_jobs.push_back(std::move(job));
    }
    void add_matrix(std::size_t block, attention_role role, matrix_input<float> rows) {
        const std::vector<std::uint64_t> shape{rows.rows(), rows.cols()};
        add_matrix(name_of(block, role), shape, std::move(rows));
    }

    /// Gains and biases stay float32: they are few, and rounding them would gain nothing.
    void add_vector(std::string name, std::vector<float> values) {
        if (values.empty()) return;
        conversion_job job;
        job.tensors.push_back({name, dtype::f32, {values.size()}});
        job.run = [name = std::move(name), values = std::move(values)](tensor_sink& sink, executor&) {
            sink.numbers(name, values);
        };
        m_jobs.push_back(std::move(job));
    }
    template <class Values>
    void add_vector(std::size_t block, attention_role role, std::string_view suffix, const Values& values) {
        add_vector(name_of(block, role, suffix), std::vector<float>(values.data(), values.data() + values.size()));
    }

    void plan_block(std::size_t block) {
        using enum attention_role;
        if (m_form == m_source.config().form) {
            const attention_tensors<float> w = m_source.stored_tensors(block);
            const std::pair<attention_role, const matrix_input<float>&> matrices[] = {
                {q, w.q}, {q_a, w.q_a}, {q_b, w.q_b}, {kv_b, w.kv_b}, {k, w.k}, {v, w.v}, {o, w.o}};
            for (const auto& [role, matrix] : matrices)
                if (!matrix.empty()) add_matrix(block, role, matrix);
            const bool dense = m_form == attention_form::dense;
            if (!w.kv_a.empty()) add_matrix(block, dense ? kv_a_latent : kv_a, w.kv_a);
            if (!w.k_b.empty()) add_per_head(block, k_b, w.k_b);
            if (!w.v_b.empty()) add_per_head(block, v_b, w.v_b);
            const std::pair<attention_role, const vector_input<float>&> biases[] = {
                {q, w.q_bias}, {q_a, w.q_a_bias}, {dense ? kv_a_latent : kv_a, w.kv_a_bias},
                {k, w.k_bias}, {v, w.v_bias},     {o, w.o_bias}};
            for (const auto& [role, bias] : biases) add_vector(block, role, ".bias", bias);
            add_vector(block, q_a_norm, ".weight", w.q_a_norm);
            add_vector(block, kv_a_norm, ".weight", w.kv_a_norm);
            return;
        }
        const published_attention published = m_source.published(block);
        m_form == attention_form::dense ? plan_dense(block, published) : plan_latent(block, published);
        add_matrix(block, o, published.o);
        add_vector(block, o, ".bias", published.o_bias);
    }

    /// k_b [G, R, N] and v_b [G, V, R] keep their three dimensions.
    void add_per_head(std::size_t block, attention_role role, const matrix_input<float>& rows) {
        const std::uint64_t heads = m_source.geometry().kv_heads();
        add_matrix(name_of(block, role), {heads, rows.rows() / heads, rows.cols()}, rows);
    }

    /// Q, K and V by blocks of heads, so that no layer is ever held as a whole.
    void plan_dense(std::size_t block, const published_attention& published) {
        using enum attention_role;
        const mla_geometry g = m_source.geometry();
        const std::uint64_t width = g.hidden_size;
        conversion_job job;
        const std::string q_name = name_of(block, q), k_name = name_of(block, k), v_name = name_of(block, v);
        job.tensors = {{q_name, m_type, {g.num_heads * g.qk_head_dim(), width}},
                       {k_name, m_type, {g.kv_heads() * g.qk_head_dim(), width}},
                       {v_name, m_type, {g.kv_heads() * g.v_head_dim, width}}};
        job.run = [=, factors = published.factors](tensor_sink& sink, executor& threads) {
            const std::size_t group = g.num_heads / g.kv_heads();
            const std::size_t per_head = (2 * g.qk_head_dim() + g.v_head_dim) * g.hidden_size;
            const std::size_t step = std::max<std::size_t>(product_floats / per_head / group, 1) * group;
            for (std::size_t head = 0; head < g.num_heads; head += step) {
                const auto part = absorb(factors, g,
                                         {.head_begin = head,
                                          .head_end = std::min(head + step, g.num_heads),
                                          .keep_latent_rows = false,
                                          .threads = &threads});
                sink.numbers(q_name, {part.q.data(), part.q.size()});
                sink.numbers(k_name, {part.k.data(), part.k.size()});
                sink.numbers(v_name, {part.v.data(), part.v.size()});
            }
        };
        m_jobs.push_back(std::move(job));
        if (g.q_lora_rank != 0) add_matrix(block, q_a, published.factors.q_a);
        add_matrix(block, kv_a_latent, published.factors.kv_a.row_range(0, g.kv_lora_rank));
        dense_mla<float> biases;
        absorb_biases(published.factors, g, check_factors(published.factors, g, 0, g.num_heads), biases.order,
                      biases.pairing, biases);
        add_vector(block, q, ".bias", biases.q_bias);
        add_vector(block, k, ".bias", biases.k_bias);
        add_vector(block, v, ".bias", biases.v_bias);
        add_vector(block, q_a, ".bias", biases.q_a_bias);
        add_vector(block, kv_a_latent, ".bias", biases.kv_a_bias);
    }

    void plan_latent(std::size_t block, const published_attention& published) {
        using enum attention_role;
        const mla_geometry g = m_source.geometry();
        conversion_job job;
        const bool direct = g.q_lora_rank == 0;
        const std::uint64_t width = g.hidden_size, rank = g.kv_lora_rank, heads = g.kv_heads();
        const std::string query = name_of(block, direct ? q : q_b), query_a = name_of(block, q_a);
        const std::string key_a = name_of(block, kv_a), key_b = name_of(block, k_b), value_b = name_of(block, v_b);
        job.tensors = {{query, m_type, {g.num_heads * g.qk_head_dim(), direct ? width : g.q_lora_rank}},
                       {key_a, m_type, {rank + g.qk_rope_head_dim, width}},
                       {key_b, m_type, {heads, rank, g.qk_nope_head_dim}},
                       {value_b, m_type, {heads, g.v_head_dim, rank}}};
        if (!direct) job.tensors.push_back({query_a, m_type, {g.q_lora_rank, width}});
        job.run = [=, factors = published.factors](tensor_sink& sink, executor&) {
            const latent_mla<float> layer = absorb_latent(factors, g);
            const tensor<float, 2>& q_rows = direct ? layer.q : layer.q_b;
            sink.numbers(query, {q_rows.data(), q_rows.size()});
            if (!direct) sink.numbers(query_a, {layer.q_a.data(), layer.q_a.size()});
            sink.numbers(key_a, {layer.kv_a.data(), layer.kv_a.size()});
            sink.numbers(key_b, {layer.k_b.data(), layer.k_b.size()});
            sink.numbers(value_b, {layer.v_b.data(), layer.v_b.size()});
        };
        m_jobs.push_back(std::move(job));
        const head_rows rows(g, head_order::rope_nope, rope_pairing::half_split);
        add_vector(block, q_a, ".bias", published.factors.q_a_bias);
        add_vector(block, kv_a, ".bias", permute_kv_a_bias(published.factors.kv_a_bias, g, rows));
    }

    /// Whether a stored tensor belongs to an attention block that the conversion writes, or to one that it leaves out.
    [[nodiscard]] bool is_replaced(std::string_view name) const {
        for (std::size_t block = 0; block < m_source.attention_blocks(); ++block) {
            const std::string prefix = m_source.block_prefix(block);
            if (!name.starts_with(prefix)) continue;
            const std::string_view stem = name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size());
            for (const role_names& row : role_table)
                if (stem == (m_source.gguf() != nullptr ? row.gguf : row.safetensors)) return true;
        }
        return false;
    }

    /// Everything but attention, byte for byte: also quantised tensors with their scales, which larql reads as they
    /// are.
    void copy_safetensors() {
        for (const tensor_info& info : m_source.tensors()) {
            if (is_replaced(info.name)) continue;
            conversion_job job;
            job.tensors.push_back({std::string(info.name), info.type, info.shape});
            job.run = [this_source = &m_source, &info](tensor_sink& sink, executor&) {
                sink.bytes(std::string(info.name), this_source->bytes(info));
            };
            m_jobs.push_back(std::move(job));
        }
    }

    /// Everything but attention under transformers' names. Block formats become the output type, which safetensors has.
    void copy_gguf() {
        for (const std::string& name : m_source.weights().names()) {
            if (is_replaced(name) || name == "rope_freqs.weight") continue;
            const weight stored = m_source.weights().at(name);
            const hf_name target = hf_name_of(name).value_or(hf_name{name, {}});
            if (target.expert_suffix.empty() || stored.shape().size() != 3) {
                add_weight(target.name, stored, 0, stored.rows(), {stored.shape().begin(), stored.shape().end()});
                continue;
            }
            const std::uint64_t rows = stored.shape()[1];
            for (std::uint64_t expert = 0; expert < stored.shape()[0]; ++expert)
                add_weight(target.name + std::to_string(expert) + target.expert_suffix, stored, expert * rows,
                           (expert + 1) * rows, {rows, stored.columns()});
        }
    }

    void add_weight(const std::string& name, const weight& stored, std::uint64_t begin, std::uint64_t end,
                    std::vector<std::uint64_t> shape) {
        const dtype_traits& traits = traits_of(stored.type());
        if (stored.raw() != nullptr && traits.kind != dtype_kind::block) {
            conversion_job job;
            job.tensors.push_back({name, stored.type(), std::move(shape)});
            const std::uint64_t row_bytes = stored.columns() * traits.block_bytes;
            const auto bytes = m_source.bytes(*stored.raw())
                                   .subspan(static_cast<std::size_t>(begin * row_bytes),
                                            static_cast<std::size_t>((end - begin) * row_bytes));
            job.run = [name, bytes](tensor_sink& sink, executor&) { sink.bytes(name, bytes); };
            m_jobs.push_back(std::move(job));
            return;
        }
        const auto rows = static_cast<std::size_t>(end - begin), cols = static_cast<std::size_t>(stored.columns());
        add_matrix(name, std::move(shape),
                   matrix_input<float>(rows, cols,
                                       [stored, begin](std::size_t b, std::size_t e, float* out, std::size_t stride) {
                                           stored.read_rows(begin + b, begin + e, out, stride);
                                       }));
    }

    const checkpoint& m_source;
    attention_form m_form;
    dtype m_type;
    std::size_t m_begin, m_end;
    std::vector<conversion_job> m_jobs;
};

}  // namespace larql::detail

#endif
