// SPDX-License-Identifier: Apache-2.0
//
// The tensors of a vindex folder that larql wrote: where they lie in files without headers.
#ifndef LARQL_DETAIL_VINDEX_READ_HPP
#define LARQL_DETAIL_VINDEX_READ_HPP

#include <larql/detail/concat.hpp>
#include <larql/detail/io/byte_reader.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/json.hpp>
#include <larql/detail/safetensors/index.hpp>
#include <larql/detail/vindex/names.hpp>
#include <larql/dtype.hpp>
#include <larql/error.hpp>
#include <larql/printable.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace larql::detail {

/// A tensor, and the file of the folder that it lies in.
struct vindex_tensor {
    std::string name, file;
    std::vector<std::uint64_t> shape;
    dtype type = dtype::f32;
    std::uint64_t offset = 0, size_bytes = 0;
};

struct vindex_contents {
    std::vector<vindex_tensor> tensors;
    std::string config;  ///< a config.json
};

/// Reads index.json and the manifest.
class vindex_reader {
public:
    explicit vindex_reader(const std::filesystem::path& folder) : m_folder(folder) {}

    /// @throws error errc::missing_key for a folder that larql did not write, errc::wrong_type, errc::bad_value,
    ///         errc::shape_mismatch
    [[nodiscard]] vindex_contents read() {
        const std::filesystem::path at = m_folder / vindex_index;
        const nlohmann::json index = parse_json(read_text_file(at, max_config_bytes), {.file = path_text(at)}, {});
        m_file = path_text(at);
        vindex_contents contents;
        if (!index.is_object()) refuse(errc::wrong_type, "", "expected an object");
        const auto config = index.find("larql_config");
        if (config == index.end())
            refuse(errc::missing_key, "larql_config",
                   "required and absent: larql reads the vindex folders that it wrote, as those of others do not say "
                   "what the attention is");
        contents.config = config->dump();
        const auto prefix = index.find("larql_prefix");
        if (prefix != index.end() && prefix->is_string()) m_prefix = prefix->get<std::string>();
        if (const auto own = index.find("larql_tensors"); own != index.end()) add(*own, contents);
        const std::filesystem::path manifest = m_folder / vindex_manifest;
        m_file = path_text(manifest);
        add(parse_json(read_text_file(manifest), {.file = m_file}, {}), contents);
        return contents;
    }

private:
    [[noreturn]] void refuse(errc code, const std::string& subject, const std::string& problem) const {
        fail(code, problem, {.file = m_file, .subject = subject});
    }

    void add(const nlohmann::json& list, vindex_contents& contents) const {
        if (!list.is_array()) refuse(errc::wrong_type, "", "expected a list of tensors");
        for (const nlohmann::json& entry : list) contents.tensors.push_back(tensor_of(entry));
    }

    [[nodiscard]] vindex_tensor tensor_of(const nlohmann::json& entry) const {
        if (!entry.is_object()) refuse(errc::wrong_type, "", "expected an object for each tensor");
        const auto at = [&](const char* key) -> const nlohmann::json& {
            const auto found = entry.find(key);
            if (found == entry.end()) refuse(errc::missing_key, key, "required and absent");
            return *found;
        };
        const auto text = [&](const char* key) {
            if (!at(key).is_string()) refuse(errc::wrong_type, key, "expected a text");
            return at(key).get<std::string>();
        };
        const auto number = [&](const char* key) {
            if (!at(key).is_number_unsigned()) refuse(errc::wrong_type, key, "expected a number of bytes");
            return at(key).get<std::uint64_t>();
        };
        vindex_tensor tensor;
        const std::string key = text("key");
        tensor.name = entry.contains("larql_name") ? text("larql_name") : m_prefix + key;
        tensor.file = entry.contains("file") ? text("file") : "model_weights.bin";
        if (tensor.file.empty() || tensor.file.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos ||
            tensor.file == "." || tensor.file == "..")
            refuse(errc::bad_value, key, "expected the name of a file in the folder, got " + printable(tensor.file));
        tensor.offset = number("offset");
        tensor.size_bytes = number("length");
        if (!at("shape").is_array() || at("shape").size() > 8) refuse(errc::wrong_type, key, "expected a shape");
        std::uint64_t elements = 1;
        for (const nlohmann::json& extent : at("shape")) {
            if (!extent.is_number_unsigned()) refuse(errc::wrong_type, key, "expected a shape of whole numbers");
            tensor.shape.push_back(extent.get<std::uint64_t>());
            const auto product = checked_multiply(elements, tensor.shape.back());
            if (!product || *product >= std::uint64_t{1} << 60)
                refuse(errc::bad_value, key, "expected fewer than 2^60 elements, got more");
            elements = *product;
        }
        if (tensor.size_bytes != elements * 4 && tensor.size_bytes != elements * 2)
            refuse(errc::shape_mismatch, key,
                   concat({"expected 4 or 2 bytes for each of ", elements, " elements, got ", tensor.size_bytes,
                           " bytes"}));
        if (elements != 0 && tensor.size_bytes == elements * 2) tensor.type = dtype::f16;
        return tensor;
    }
    std::filesystem::path m_folder;
    std::string m_file;
    std::string m_prefix = "model.";
};

}  // namespace larql::detail

#endif
