// SPDX-License-Identifier: Apache-2.0
//
// Files that stand where a checkpoint should be: what they are by their first bytes, and what to do about it. Asked
// only when a file is not what it was opened as, so that nothing valid is mistaken.
#ifndef LARQL_DETAIL_IO_NOT_A_CHECKPOINT_HPP
#define LARQL_DETAIL_IO_NOT_A_CHECKPOINT_HPP

#include <larql/error.hpp>
#include <larql/printable.hpp>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>

namespace larql::detail {

inline constexpr std::size_t other_file_head_bytes = 512;  // a Git LFS pointer and its size, white space before a page

/// The number in the line "size N" of a Git LFS pointer, or nothing.
inline std::string_view lfs_size(std::string_view pointer) {
    constexpr std::string_view key = "\nsize ";
    const std::size_t at = pointer.find(key);
    if (at == std::string_view::npos) return {};
    const std::string_view rest = pointer.substr(at + key.size());
    return rest.substr(0, std::min(rest.find_first_not_of("0123456789"), rest.size()));
}

/// Whether text begins with `lower` after white space and a byte order mark, whatever the case of its letters.
inline bool begins_with_text(std::string_view text, std::string_view lower) {
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n\f"), text.size()));
    return text.size() >= lower.size() && std::equal(lower.begin(), lower.end(), text.begin(), [](char a, char b) {
               return a == static_cast<char>(std::tolower(static_cast<unsigned char>(b)));
           });
}

inline bool begins_like_safetensors(std::string_view head) {
    return head.size() > 8 && head[8] == '{' &&
           std::all_of(head.begin() + 4, head.begin() + 8, [](char c) { return c == 0; });
}

/// "this is ...", with what to do, or empty if the bytes do not tell.
///
/// @param head  the first bytes of the file, other_file_head_bytes or all
inline std::string describe_other_file(std::string_view head) {
    struct beginning {
        std::string_view bytes;
        const char* what;
    };
    using namespace std::string_view_literals;
    constexpr const char* torch =
        "as PyTorch's .bin, .pt and .pth files are: save the model as safetensors, or convert it to GGUF";
    constexpr beginning beginnings[] = {
        {"GGUF"sv, "a GGUF file: give it a name that ends in .gguf"},
        {"PK\3\4"sv, "a zip archive, "},
        {"PK\5\6"sv, "a zip archive, "},
        {"\x80\2"sv, "a Python pickle, "},
        {"\x1f\x8b"sv, "a gzip archive: unpack it first"},
        {"tjgg"sv, "a ggml file from before GGUF: convert it with llama.cpp"},
        {"fmgg"sv, "a ggml file from before GGUF: convert it with llama.cpp"},
        {"lmgg"sv, "a ggml file from before GGUF: convert it with llama.cpp"},
    };
    if (head.empty()) return "this is an empty file: download it again";
    for (const char* lfs : {"version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/"})
        if (head.starts_with(lfs)) {
            const std::string_view size = lfs_size(head);
            return "this is a Git LFS pointer, and the file itself" +
                   (size.empty() ? std::string() : ", of " + printable(size, 20) + " bytes,") +
                   " is not here: the weights must be downloaded with \"git lfs pull\"";
        }
    if (begins_with_text(head, "<!doctype html") || begins_with_text(head, "<html"))
        return "this is an HTML page, which servers send for a wrong link or without a login: download the file again";
    if (begins_with_text(head, "<?xml"))
        return "this is an XML document, which servers send as an error: download the file again";
    if (std::all_of(head.begin(), head.end(), [](char c) { return c == 0; }))
        return "this is space for a file that was never written, zeros: download it again";
    for (const beginning& b : beginnings)
        if (head.starts_with(b.bytes))
            return "this is " + std::string(b.what) + (std::string_view(b.what).ends_with(", ") ? torch : "");
    if (begins_like_safetensors(head)) return "this is a safetensors file: give it a name that ends in .safetensors";
    return {};
}

/// The same after a colon, to end an error's text with.
inline std::string or_what_it_is(std::string_view head) {
    const std::string what = describe_other_file(head);
    return what.empty() ? what : ": " + what;
}

/// Refuses a file that is recognised as something else.
/// @param expected  "a safetensors file"
/// @throws error bad_magic saying what it is
inline void refuse_other_file(std::string_view head, const char* expected, const std::string& file) {
    const std::string what = describe_other_file(head);
    if (!what.empty()) fail(errc::bad_magic, "not " + std::string(expected) + ": " + what, {.file = file, .offset = 0});
}

}  // namespace larql::detail

#endif
