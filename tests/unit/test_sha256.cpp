// SPDX-License-Identifier: Apache-2.0
#include <larql/detail/io/sha256.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>

using larql::detail::hex_text;
using larql::detail::sha256;

namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string hash(const std::string& text, std::size_t piece = 1000) {
    sha256 hasher;
    auto rest = bytes_of(text);
    while (!rest.empty()) {
        const auto part = rest.first(std::min(piece, rest.size()));
        hasher.update(part);
        rest = rest.subspan(part.size());
    }
    return hex_text(hasher.finish());
}

}  // namespace

// The examples of FIPS 180-4 as published by NIST; the others are what coreutils' sha256sum says.
TEST_CASE("sha256: published vectors") {
    CHECK(hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(hash("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrs"
               "tnopqrstu") == "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    CHECK(hash(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256: around the end of a block, where the length may need one of its own") {
    CHECK(hash(std::string(55, 'a')) == "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    CHECK(hash(std::string(56, 'a')) == "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
    CHECK(hash(std::string(63, 'a')) == "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34");
    CHECK(hash(std::string(64, 'a')) == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
    CHECK(hash(std::string(65, 'a')) == "635361c48bb9eab14198e76ea8ab7f1a41685d6ad62aa9146d301d4f17eb0ae0");
}

TEST_CASE("sha256: pieces of any size give the hash of the whole") {
    std::string text;
    for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7);
    const std::string whole = hash(text);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{3}, std::size_t{63}, std::size_t{64}, std::size_t{65}})
        CHECK(hash(text, piece) == whole);
}

TEST_CASE("sha256: hexadecimal text has two digits for each byte") {
    const std::array<std::byte, 4> bytes = {std::byte{0}, std::byte{0x0f}, std::byte{0xa0}, std::byte{0xff}};
    CHECK(hex_text(bytes) == "000fa0ff");
    CHECK(hex_text({}).empty());
}
