// SPDX-License-Identifier: Apache-2.0
//
// Weights as float, whatever their storage: "rows a to b of this tensor". A weight_reader finds out how a checkpoint
// stores a weight (plain, ggml blocks, FP8 and INT8 with scales, packed INT4, MXFP4, NVFP4, AWQ, GPTQ); the weight that
// it hands out decodes any range of rows on demand, and holds nothing but where to find them.
//
// Storage that larql does not know, or whose parts disagree, is refused by name. Codes are never read as numbers, and
// integers never become floats.
//
// | scheme         | stored as                                                           | value of a code c       |
// |----------------|---------------------------------------------------------------------|-------------------------|
// | ""             | the tensor itself; GGUF: perhaps a sibling `.scale`                 | the number (* s)        |
// | "fp8"          | F8 + `weight_scale_inv`, `weight_scale`, `.scale`, `qscale_weight`  | c * s                   |
// | "fp8-block"    | the same but the last, with a scale for each block                  | c * s                   |
// | "int8"         | I8 + `weight_scale` (, `weight_zero_point`)                         | (c - z) * s             |
// | "int8-group"   | the same with several scales in a row                               | (c - z) * s             |
// | "int4-packed"  | I32 `weight_packed`, `_scale`, `_shape` (, `_zero_point`, `_g_idx`) | (c - z) * s             |
// | "int8-packed"  | the same with 8 bits; "int2-packed" with 2                          | (c - z) * s             |
// | "mxfp4"        | two E2M1 in a byte, an E8M0 scale for 32 columns                    | c * s                   |
// | "nvfp4"        | two E2M1 in a byte, an E4M3 scale for 16 columns, g for all         | c * (s * g or s / g)    |
// | "mxfp4-blocks" | GPT-OSS's `X_blocks`, `X_scales`                                    | c * s, transposed       |
// | "awq", "gptq"  | `qweight`, `qzeros`, `scales` (, `g_idx`), also auto-round's        | (c - z) * s, transposed |
//
// z: the zero point, s: the scale, g: the scale of the whole tensor. What is in parentheses may be absent. Lines of the
// table that are longer than the formatter's limit would be reflowed with all that follow.
//
// Logical shapes are those of the unquantised model. GPT-OSS stores experts as [experts, out, in / 32, 16] and
// transformers holds them as [experts, in, out]: larql gives the latter under the name X. OpenAI's own `X.blocks` and
// `X.scales` are not transposed: [experts, out, in]. AWQ and GPTQ layers are [out, in], as a linear layer's weight is.
#ifndef LARQL_WEIGHT_READER_HPP
#define LARQL_WEIGHT_READER_HPP

#include <larql/detail/separate.hpp>
#include <larql/error.hpp>
#include <larql/gguf.hpp>
#include <larql/quantization_config.hpp>
#include <larql/safetensors.hpp>
#include <larql/tensor_info.hpp>
#include <larql/weight_storage.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql {

namespace detail {
class row_source;
struct found_weight;
}  // namespace detail

/// One logical weight, whatever its storage. Cheap to copy. It shares the ownership that its reader has of the
/// checkpoint: see weight_reader.
class weight {
public:
    [[nodiscard]] const std::string& name() const& noexcept { return m_name; }
    const std::string& name() const&& = delete;
    /// Logical shape, row-major: [out, in] for a linear layer also where it is packed or transposed in storage.
    [[nodiscard]] std::span<const std::uint64_t> shape() const& noexcept { return m_shape; }
    std::span<const std::uint64_t> shape() const&& = delete;
    /// Length of a row: the last dimension, 1 for a scalar.
    [[nodiscard]] std::uint64_t columns() const noexcept { return m_shape.empty() ? 1 : m_shape.back(); }
    /// All dimensions but the last, multiplied.
    [[nodiscard]] std::uint64_t rows() const noexcept { return m_rows; }
    /// The dtype of the tensor that holds the numbers or codes.
    [[nodiscard]] dtype type() const noexcept { return m_type; }
    /// How the codes become numbers, as in the table above; empty for plain tensors and ggml's own blocks.
    [[nodiscard]] std::string_view scheme() const noexcept { return m_scheme; }
    /// Bytes of all tensors that make up the weight, scales included.
    [[nodiscard]] std::uint64_t stored_bytes() const noexcept { return m_stored_bytes; }
    /// The stored tensor if it alone is the weight, so that its bytes may be used as they are; null if not. It belongs
    /// to the checkpoint.
    [[nodiscard]] const tensor_info* raw() const noexcept { return m_raw; }

    /// Decodes rows [row_begin, row_end).
    ///
    /// @param out         row r goes to out + (r - row_begin) * out_stride
    /// @param out_stride  floats from one row to the next, at least columns()
    /// @throws error shape_mismatch for rows that do not exist or a stride that is too short, unsupported_dtype for
    ///         integers, source_changed if the file is no longer what was opened
    /// @note   Thread-safe. Reads only the stored bytes that these rows need, by ordinary reads, a few microseconds for
    ///         each tensor involved: ask for many rows at once. "awq", "gptq" and transposed "mxfp4-blocks" come
    ///         straight from the map (see mapped_file), and best in multiples of 64 rows. Products are rounded once, in
    ///         float; see detail/quant/grid.hpp for where two scales meet.
    void read_rows(std::uint64_t row_begin, std::uint64_t row_end, float* out, std::size_t out_stride) const;

    /// The same weight, with its numbers elsewhere. What a reader hands out is `from_file`, but for "awq", "gptq" and
    /// transposed "mxfp4-blocks", which are mapped.
    ///
    /// @return  keeps the memory or the map that it reads; so do copies and matrices made of it
    /// @throws error source_changed, io or unsupported_dtype as read_rows; std::bad_alloc
    [[nodiscard]] weight in(weight_storage storage) const;

    /// For matrix_of: what decodes the rows.
    [[nodiscard]] const std::shared_ptr<const detail::row_source>& source() const& noexcept { return m_source; }
    const std::shared_ptr<const detail::row_source>& source() const&& = delete;

private:
    friend class weight_reader;

    weight(std::string_view name, detail::found_weight&& found);

    std::string m_name;
    std::vector<std::uint64_t> m_shape;
    std::uint64_t m_rows = 1;
    dtype m_type;
    std::string_view m_scheme;
    std::uint64_t m_stored_bytes;
    const tensor_info* m_raw;
    std::shared_ptr<const detail::row_source> m_source;
};

/// Finds weights by their logical names, in one open checkpoint.
///
/// A reader that was given a shared pointer or a temporary owns the checkpoint together with its copies and weights,
/// which stay valid when the reader is gone. One that was given a named file owns nothing: that file must outlive the
/// reader and its weights, and must not be moved meanwhile.
class weight_reader {
public:
    /// @throws error bad_value if `file` is null
    explicit weight_reader(std::shared_ptr<const safetensors_file> file, quantization_config config = {})
        : m_safetensors(std::move(file)), m_config(std::move(config)) {
        require_file(m_safetensors != nullptr);
    }
    explicit weight_reader(safetensors_file&& file, quantization_config config = {})
        : weight_reader(std::make_shared<const safetensors_file>(std::move(file)), std::move(config)) {}
    explicit weight_reader(const safetensors_file& file, quantization_config config = {})
        : weight_reader(unowned(file), std::move(config)) {}
    explicit weight_reader(const safetensors_file&&, quantization_config = {}) = delete;

    /// @throws error bad_value if `file` is null
    explicit weight_reader(std::shared_ptr<const gguf_file> file) : m_gguf(std::move(file)) {
        require_file(m_gguf != nullptr);
    }
    explicit weight_reader(gguf_file&& file) : weight_reader(std::make_shared<const gguf_file>(std::move(file))) {}
    explicit weight_reader(const gguf_file& file) : weight_reader(unowned(file)) {}
    explicit weight_reader(const gguf_file&&) = delete;

    /// The weight of this name, such as "model.layers.0.self_attn.q_proj.weight" or "blk.0.attn_q.weight", or nothing.
    /// A part of a weight (a scale, a qweight) is found under its own name too, as the plain tensor that it is.
    ///
    /// @throws error unsupported_dtype for storage that larql refuses by name, shape_mismatch when parts disagree,
    ///         missing_tensor when one, or what the index names, is absent, missing_key when only quantization_config
    ///         could tell how to read it, bad_value for parts or group indices that contradict each other
    /// @note   Reads the headers, and of the data only weight_shape, g_idx, GPTQ's zero points and factors of whole
    ///         matrices.
    [[nodiscard]] std::optional<weight> find(std::string_view name) const;

    /// The weight of this name.
    /// @throws error missing_tensor, unsupported_dtype if quantization_config names a method that larql does not read,
    ///         and what find() throws
    [[nodiscard]] weight at(std::string_view name) const;

    /// Whether find() would look at tensors of this name; it may still refuse them.
    [[nodiscard]] bool contains(std::string_view name) const;

    /// Logical names of all weights and other tensors, in stored order: without scales, zero points and the like, and
    /// with packed weights under the name that they have unpacked.
    [[nodiscard]] std::vector<std::string> names() const;

    [[nodiscard]] const quantization_config& config() const& noexcept { return m_config; }
    const quantization_config& config() const&& = delete;

private:
    template <class File>
    static std::shared_ptr<const File> unowned(const File& file) noexcept {
        return {std::shared_ptr<const void>{}, &file};  // shares the ownership of nothing
    }
    static void require_file(bool given);

    static constexpr std::string_view weight_ending = ".weight";
    static constexpr std::string_view scale_ending = ".scale";

    /// The sibling `X.scale` of `X.weight`: a factor of the tensor, or of each leading index. `.input_scale` belongs to
    /// the activations and is not applied.
    [[nodiscard]] const tensor_info* gguf_scale(const tensor_info& info) const;

    [[nodiscard]] bool is_gguf_scale(const tensor_info& info) const;

    [[nodiscard]] detail::found_weight from_gguf(const tensor_info& info) const;

    std::shared_ptr<const safetensors_file> m_safetensors{};
    std::shared_ptr<const gguf_file> m_gguf{};
    quantization_config m_config{};
};

}  // namespace larql

#ifndef LARQL_SEPARATE
#include <larql/detail/bodies/weight_reader.hpp>
#endif

#endif
