// SPDX-License-Identifier: Apache-2.0
//
// What tells one conversion from another, so that work is never put together that does not belong together.
#ifndef LARQL_DETAIL_CONVERT_FINGERPRINT_HPP
#define LARQL_DETAIL_CONVERT_FINGERPRINT_HPP

#include <larql/checkpoint.hpp>
#include <larql/detail/convert/conversion_row.hpp>
#include <larql/detail/convert/layout.hpp>
#include <larql/detail/convert/number_formats.hpp>
#include <larql/detail/io/input_file.hpp>
#include <larql/detail/io/sha256.hpp>
#include <larql/version.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace larql::detail {

/// Hashes values with their lengths, so that no two sequences are alike.
class fingerprint {
public:
    void add(std::string_view text) {
        add(text.size());
        m_hash.update(std::as_bytes(std::span(text)));
    }
    void add(std::uint64_t number) { m_hash.update(std::as_bytes(std::span(&number, 1))); }
    [[nodiscard]] std::string finish() { return hex_text(m_hash.finish()); }

private:
    sha256 m_hash;
};

/// Of what is made, from which tensors: the same on every machine that sees the same files.
inline std::string plan_fingerprint(const checkpoint& source, const conversion_scope& scope,
                                    std::span<const conversion_row> rows, const conversion_layout& layout) {
    fingerprint print;
    for (const int number : {LARQL_VERSION_MAJOR, LARQL_VERSION_MINOR, LARQL_VERSION_PATCH})
        print.add(static_cast<std::uint64_t>(number));
    print.add(to_string(scope.form));
    print.add(scope.block_begin);
    print.add(scope.block_end);
    for (const tensor_info& info : source.tensors()) {
        print.add(info.name);
        print.add(to_string(info.type));
        print.add(info.shard);
        print.add(info.offset);
        print.add(info.size_bytes);
    }
    for (const planned_file& file : layout.files) {
        print.add(file.name);
        print.add(file.size_bytes);
        print.add(file.header);
    }
    for (const planned_text& text : layout.texts) print.add(text.content);
    for (const conversion_row& row : rows)
        for (const planned_tensor& tensor : row.tensors) print.add(tensor.name);
    return print.finish();
}

/// Of the source's files as they are now.
inline std::string source_fingerprint(const checkpoint& source) {
    fingerprint print;
    for (const std::filesystem::path& path : source.paths()) {
        const input_file file = input_file::open(path);
        print.add(path_text(path.filename()));
        print.add(file.identity().size_bytes);
        print.add(static_cast<std::uint64_t>(file.identity().modified));
    }
    return print.finish();
}

}  // namespace larql::detail

#endif
