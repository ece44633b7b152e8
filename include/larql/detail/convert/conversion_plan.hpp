// SPDX-License-Identifier: Apache-2.0
//
// What a conversion writes: the output tensors in order, each with the work that makes its rows.
#ifndef LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP
#define LARQL_DETAIL_CONVERT_CONVERSION_PLAN_HPP

#include <larql/attention_form.hpp>
#include <larql/checkpoint.hpp>
#include <larql/detail/model/names.hpp>
#include <larql/detail/model/roles.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/executor.hpp>
#include <larql/matrix_input.hpp>
#include <larql/mla_absorb.hpp>
#include <larql/mla_geometry.hpp>
#include <larql/rope.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
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

/// The rows of a projection with the rotated rows of each head in another pairing.
inline matrix_input<float> in_pairing(matrix_input<float> rows, const mla_geometry& g, rope_pairing pairing) {
    const std::vector<std::size_t> order = rope_row_order(g.qk_rope_head_dim, g.pairing, pairing);
    const std::size_t dim = g.qk_head_dim(), begin = rope_begin(g), count = rows.rows(), cols = rows.cols();
    return matrix_input<float>(
        count, cols, [=, rows = std::move(rows)](std::size_t first, std::size_t last, float* out, std::size_t stride) {
            for (std::size_t i = first; i < last; ++i, out += stride) {
                const std::size_t within = i % dim, rotated = within - begin;  // wraps before the rotated part
                const std::size_t from = rotated < order.size() ? i - within + begin + order[rotated] : i;
                rows.read_rows(from, from + 1, out, stride);
            }
        });
}

/// A vector as a matrix of one column.
inline matrix_input<float> as_column(const vector_input<float>& vector) {
    return matrix_input<float>(vector.size(), 1,
                               [values = vector.values()](std::size_t b, std::size_t e, float* out, std::size_t stride) {
                                   for (std::size_t i = b; i < e; ++i, out += stride) *out = values[i];
                               });
}

/// Builds the jobs of a conversion to transformers' names.
class conversion_planner {
public:
    conversion_planner(const checkpoint& source, attention_form form, dtype type, std::size_t block_begin,
                       std::size_t block_end)
        : m_source(source),
          m_form(form),
          m_type(type),
          m_begin(block_begin),
          m_end(block_end),
          m_names(source.family().names, naming::safetensors),
          m_prefix(source.gguf() != nullptr ? "model." : source.name_prefix()) {}

    [[nodiscard]] std::vector<conversion_job> plan() {
        for (std::size_t block = m_begin; block < m_end; ++block) plan_block(block);
        if (m_source.gguf() != nullptr)
            plan_gguf_rest();
        else
            plan_safetensors_rest();
        return std::move(m_jobs);
    }

private:
    // --- names ---

    [[nodiscard]] std::optional<std::string> find_name(const tensor_identity& what) const {
        return m_names.spell(what, m_prefix);
    }
    [[nodiscard]] std::string name_of(const tensor_identity& what) const {
        if (auto name = find_name(what)) return *std::move(name);
        fail(errc::unsupported_architecture,
             "\"" + m_source.config().family + "\" has no name for \"" + std::string(to_string(what.role)) +
                 "\" in safetensors",
             {.file = m_source.shard_path(0)});
    }

    // --- pieces of work ---

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
    void add_bias(tensor_role role, std::size_t block, const Values& values) {
        if (values.size() == 0) return;
        add_vector(name_of({role, true, block, 0}), std::vector<float>(values.data(), values.data() + values.size()));
    }

    /// Rows [begin, end) of a stored weight: as they are, or decoded where their format does not exist in safetensors.
    void add_rows(const std::string& name, const weight& stored, std::uint64_t begin, std::uint64_t end,
                  std::vector<std::uint64_t> shape) {
        const dtype_traits& traits = traits_of(stored.type());
        if (stored.raw() != nullptr && traits.kind != dtype_kind::block) {
            const std::uint64_t row_bytes = stored.columns() * traits.block_bytes;
            const auto bytes = m_source.bytes(*stored.raw())
                                   .subspan(static_cast<std::size_t>(begin * row_bytes),
                                            static_cast<std::size_t>((end - begin) * row_bytes));
            conversion_job job;
            job.tensors.push_back({name, stored.type(), std::move(shape)});
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
    void add_whole(const std::string& name, const weight& stored) {
        add_rows(name, stored, 0, stored.rows(), {stored.shape().begin(), stored.shape().end()});
    }

    // --- attention ---

    void plan_block(std::size_t block) {
        const attention_spec& spec = m_source.spec(block);
        if (m_form == spec.form) return plan_stored(block, spec);
        const mla_factors<float> factors = m_source.factors(block);
        if (m_form == attention_form::dense)
            plan_dense(block, factors, spec.geometry);
        else
            plan_latent(block, factors, spec.geometry);
        attention_weights<float> stored = m_source.stored_weights(block);
        add_role(*find_role(tensor_role::o), block, spec, stored);
    }

    /// Every tensor in the form in which it is stored. Rows that GGUF reordered return to where transformers has them.
    void plan_stored(std::size_t block, const attention_spec& spec) {
        attention_weights<float> weights = m_source.stored_weights(block);
        const bool restored = spec.kind == attention_kind::gqa && spec.geometry.pairing != published_pairing(spec);
        if (restored)
            for (const tensor_role role : {tensor_role::q, tensor_role::k}) restore_rows(role, spec, weights);
        for (const role_row& row : attention_roles) {
            if (!row.needed(spec, spec.form)) continue;
            if (find_name({row.role, false, block, 0}))
                add_role(row, block, spec, weights);
            else
                add_source_of(row.role, block);
        }
    }

    void restore_rows(tensor_role role, const attention_spec& spec, attention_weights<float>& weights) const {
        const auto restore = [&](matrix_input<float> rows) {
            return in_pairing(std::move(rows), spec.geometry, published_pairing(spec));
        };
        weights[role] = restore(std::move(weights[role]));
        if (weights.bias(role).empty()) return;
        const tensor<float, 2> bias = restore(as_column(weights.bias(role))).to_tensor();
        weights.bias(role) = std::vector<float>(bias.begin(), bias.end());
    }

    /// The pairing of the rows as transformers has them.
    [[nodiscard]] rope_pairing published_pairing(const attention_spec& spec) const {
        return m_source.gguf() != nullptr ? m_source.family().pairing : spec.geometry.pairing;
    }

    void add_role(const role_row& row, std::size_t block, const attention_spec& spec,
                  const attention_weights<float>& weights) {
        const std::string name = name_of({row.role, false, block, 0});
        if (row.is_vector()) {
            add_vector(name, weights.vector(row.role).values());
            return;
        }
        const matrix_input<float>& rows = weights[row.role];
        std::vector<std::uint64_t> shape{rows.rows(), rows.cols()};
        if (const std::uint64_t heads = spec.geometry.kv_heads(); row.per_head)
            shape = {heads, rows.rows() / heads, rows.cols()};
        add_matrix(name, std::move(shape), rows);
        add_bias(row.role, block, weights.bias(row.role));
    }

    /// A role that the target has under no name of its own, such as q within a fused projection: what it is made from.
    void add_source_of(tensor_role role, std::size_t block) {
        const std::string stored = m_source.locate(role, block)->parts.front().name;
        if (!m_fused.insert(stored).second) return;
        const weight whole = m_source.weights().at(stored);
        add_matrix(stored, {whole.shape().begin(), whole.shape().end()},
                   matrix_input<float>(static_cast<std::size_t>(whole.rows()), static_cast<std::size_t>(whole.columns()),
                                       [whole](std::size_t b, std::size_t e, float* out, std::size_t stride) {
                                           whole.read_rows(b, e, out, stride);
                                       }));
        const std::string bias = stored.substr(0, stored.rfind('.')) + ".bias";
        if (m_source.weights().contains(bias)) add_whole(bias, m_source.weights().at(bias));
    }

    /// Q, K and V by blocks of heads, so that no layer is ever held as a whole.
    void plan_dense(std::size_t block, const mla_factors<float>& factors, const mla_geometry& g) {
        using enum tensor_role;
        const std::uint64_t width = g.hidden_size;
        const std::string q_name = name_of({q, false, block, 0}), k_name = name_of({k, false, block, 0}),
                          v_name = name_of({v, false, block, 0});
        conversion_job job;
        job.tensors = {{q_name, m_type, {g.num_heads * g.qk_head_dim(), width}},
                       {k_name, m_type, {g.kv_heads() * g.qk_head_dim(), width}},
                       {v_name, m_type, {g.kv_heads() * g.v_head_dim, width}}};
        job.run = [=](tensor_sink& sink, executor& threads) {
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
        if (g.q_lora_rank != 0)
            add_matrix(name_of({q_a, false, block, 0}), {g.q_lora_rank, width}, factors.q_a);
        add_matrix(name_of({kv_a_latent, false, block, 0}), {g.kv_lora_rank, width},
                   factors.kv_a.row_range(0, g.kv_lora_rank));
        dense_mla<float> biases;
        absorb_biases(factors, g, check_factors(factors, g, 0, g.num_heads), biases.order, biases.pairing, biases);
        add_bias(q, block, biases.q_bias);
        add_bias(k, block, biases.k_bias);
        add_bias(v, block, biases.v_bias);
        add_bias(q_a, block, biases.q_a_bias);
        add_bias(kv_a_latent, block, biases.kv_a_bias);
    }

    void plan_latent(std::size_t block, const mla_factors<float>& factors, const mla_geometry& g) {
        using enum tensor_role;
        const bool direct = g.q_lora_rank == 0;
        const std::uint64_t width = g.hidden_size, rank = g.kv_lora_rank, heads = g.kv_heads();
        const std::string query = name_of({direct ? q : q_b, false, block, 0}), query_a = name_of({q_a, false, block, 0});
        const std::string key_a = name_of({kv_a, false, block, 0}), key_b = name_of({k_b, false, block, 0}),
                          value_b = name_of({v_b, false, block, 0});
        conversion_job job;
        job.tensors = {{query, m_type, {g.num_heads * g.qk_head_dim(), direct ? width : g.q_lora_rank}},
                       {key_a, m_type, {rank + g.qk_rope_head_dim, width}},
                       {key_b, m_type, {heads, rank, g.qk_nope_head_dim}},
                       {value_b, m_type, {heads, g.v_head_dim, rank}}};
        if (!direct) job.tensors.push_back({query_a, m_type, {g.q_lora_rank, width}});
        job.run = [=](tensor_sink& sink, executor&) {
            const latent_mla<float> layer = absorb_latent(factors, g);
            const tensor<float, 2>& q_rows = direct ? layer.q : layer.q_b;
            sink.numbers(query, {q_rows.data(), q_rows.size()});
            if (!direct) sink.numbers(query_a, {layer.q_a.data(), layer.q_a.size()});
            sink.numbers(key_a, {layer.kv_a.data(), layer.kv_a.size()});
            sink.numbers(key_b, {layer.k_b.data(), layer.k_b.size()});
            sink.numbers(value_b, {layer.v_b.data(), layer.v_b.size()});
        };
        m_jobs.push_back(std::move(job));
        const head_rows rows(g, absorb_options{}.order, absorb_options{}.pairing);
        add_bias(q_a, block, factors.q_a_bias);
        add_bias(kv_a, block, permute_kv_a_bias(factors.kv_a_bias, g, rows));
    }

    // --- everything else ---

    /// Whether a tensor belongs to the attention of the model's blocks: written above, or left out with its block.
    [[nodiscard]] bool is_attention(const std::optional<matched_name>& found, std::string_view prefix) const {
        return found && found->prefix == prefix && is_attention_role(found->identity.role) &&
               found->identity.block < m_source.attention_blocks();
    }

    /// Byte for byte under the same names; quantised weights as what they stand for, since their scheme goes with the
    /// configuration that described it.
    void plan_safetensors_rest() {
        const std::string prefix = m_source.name_prefix();
        for (const std::string& name : m_source.weights().names())
            if (!is_attention(m_names.match(name), prefix)) add_whole(name, m_source.weights().at(name));
    }

    /// Under transformers' names. A stack of experts becomes one tensor for each.
    void plan_gguf_rest() {
        const name_matcher stored_names(m_source.family().names, naming::gguf);
        std::string nameless;
        for (const std::string& name : m_source.weights().names()) {
            const auto found = stored_names.match(name);
            if (is_attention(found, "") || (found && is_consumed(found->identity.role))) continue;
            const auto target = found ? find_name(found->identity) : std::nullopt;
            if (!target) {
                nameless += (nameless.empty() ? "" : ", ") + name;
                continue;
            }
            const weight stored = m_source.weights().at(name);
            if (!is_stacked(found->identity)) {
                add_whole(*target, stored);
                continue;
            }
            const std::uint64_t experts = stored.shape().size() == 3 ? stored.shape()[0] : 1;
            const std::uint64_t rows = stored.rows() / experts;
            for (std::uint64_t expert = 0; expert < experts; ++expert) {
                tensor_identity one = found->identity;
                one.expert = static_cast<std::size_t>(expert);
                add_rows(name_of(one), stored, expert * rows, (expert + 1) * rows, {rows, stored.columns()});
            }
        }
        if (!nameless.empty())
            fail(errc::unsupported_architecture, "transformers has no names for these tensors: " + nameless,
                 {.file = m_source.shard_path(0)});
    }

    /// Tensors that the configuration states in words.
    [[nodiscard]] static bool is_consumed(tensor_role role) {
        return role == tensor_role::rope_divisors || role == tensor_role::rope_long_factors ||
               role == tensor_role::rope_short_factors;
    }
    [[nodiscard]] static bool is_stacked(const tensor_identity& what) {
        return what.role == tensor_role::expert_gate || what.role == tensor_role::expert_up ||
               what.role == tensor_role::expert_down;
    }

    const checkpoint& m_source;
    attention_form m_form;
    dtype m_type;
    std::size_t m_begin, m_end;
    name_matcher m_names;
    std::string m_prefix;
    std::set<std::string> m_fused;  // stored tensors that were added for several roles
    std::vector<conversion_job> m_jobs;
};

}  // namespace larql::detail

#endif
