// SPDX-License-Identifier: Apache-2.0
//
// The tensors of a checkpoint, written one after the other: a file may name millions, and a list of them in memory
// would take many times the file's size.
#ifndef LARQL_EXAMPLES_SUPPORT_LISTING_HPP
#define LARQL_EXAMPLES_SUPPORT_LISTING_HPP

#include <larql/checkpoint.hpp>
#include <larql/printable.hpp>

#include "units.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <string>

namespace larql::program {

/// Passes text on in large pieces.
class text_sink {
public:
    text_sink() = default;
    text_sink(const text_sink&) = delete;
    text_sink& operator=(const text_sink&) = delete;
    ~text_sink() { flush(); }
    text_sink& operator<<(const std::string& text) {
        m_text += text;
        if (m_text.size() > std::size_t{1} << 16) flush();
        return *this;
    }

private:
    void flush() {
        std::cout.write(m_text.data(), static_cast<std::streamsize>(m_text.size()));
        m_text.clear();
    }
    std::string m_text{};
};

inline std::string shape_text(const tensor_info& info) {
    std::string out = "[";
    for (const std::uint64_t extent : info.shape) out += (out.size() > 1 ? "," : "") + std::to_string(extent);
    return out + "]";
}

inline void print_tensors(const checkpoint& model) {
    text_sink out;
    out << "\n";
    for (const tensor_info& info : model.tensors())
        out << printable(info.name, max_printable_name) + "  " + std::string(to_string(info.type)) + "  " +
                   shape_text(info) + "  shard " + std::to_string(info.shard) + "  " + byte_text(info.size_bytes) +
                   "\n";
}

/// The object as JSON, with the tensors as its last member, "tensor_list".
inline void print_with_tensors(const nlohmann::ordered_json& object, const checkpoint& model) {
    using json = nlohmann::ordered_json;
    std::string text = object.dump(2, ' ', true, json::error_handler_t::replace);
    text.resize(text.size() - 2);  // without "\n}"
    text_sink out;
    out << text + ",\n  \"tensor_list\": [";
    const char* before = "\n    {\"name\": ";
    for (const tensor_info& info : model.tensors()) {
        out << before + json(info.name).dump(-1, ' ', true, json::error_handler_t::replace) + ", \"type\": \"" +
                   std::string(to_string(info.type)) + "\", \"shape\": " + shape_text(info) +
                   ", \"shard\": " + std::to_string(info.shard) + ", \"bytes\": " + std::to_string(info.size_bytes) +
                   "}";
        before = ",\n    {\"name\": ";
    }
    out << "\n  ]\n}\n";
}

}  // namespace larql::program

#endif
