// SPDX-License-Identifier: Apache-2.0
//
// Builds the bytes of safetensors files, right and wrong ones. It shares no code with the library.
#ifndef LARQL_TESTS_SUPPORT_SAFETENSORS_BUILDER_HPP
#define LARQL_TESTS_SUPPORT_SAFETENSORS_BUILDER_HPP

#include <support/gguf_builder.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace larql::testing {

/// A file from its header's text, exactly as given.
inline std::string safetensors_bytes(std::string_view header, std::string_view data,
                                     std::optional<std::uint64_t> length = {}) {
    return le(length.value_or(header.size())) + std::string(header) + std::string(data);
}

/// Adds tensors one after the other; names and dtypes go into the JSON as they are.
class safetensors_builder {
public:
    safetensors_builder& tensor(std::string_view name, std::string_view dtype, std::string_view shape,
                                std::string_view data) {
        const std::string begin = std::to_string(m_data.size());
        m_data += data;
        return entry(name, "{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":" + std::string(shape) +
                               ",\"data_offsets\":[" + begin + "," + std::to_string(m_data.size()) + "]}");
    }
    /// Any JSON under a name.
    safetensors_builder& entry(std::string_view name, std::string_view json) {
        m_header += (m_header.size() > 1 ? ",\"" : "\"") + std::string(name) + "\":" + std::string(json);
        return *this;
    }
    safetensors_builder& data(std::string_view more) {
        m_data += more;
        return *this;
    }
    [[nodiscard]] std::string build() const {
        std::string header = m_header + "}";
        header.resize((header.size() + 7) / 8 * 8, ' ');
        return safetensors_bytes(header, m_data);
    }

private:
    std::string m_header = "{";
    std::string m_data;
};

}  // namespace larql::testing

#endif
