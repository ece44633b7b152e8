// SPDX-License-Identifier: Apache-2.0
//
// MemorySanitizer takes what code without its instructions writes for uninitialised. Distributions' libc++ is such
// code: what the readers need of it that no header defines is compiled here, and found before it.
#include <string>

template class std::basic_string<char>;
template std::string std::operator+
    <char, std::char_traits<char>, std::allocator<char>>(const char*, const std::string&);

namespace {
template <class T>
std::string text_of(T value) {
    std::string digits;
    for (T rest = value; digits.empty() || rest != 0; rest /= 10)
        digits.insert(digits.begin(), static_cast<char>('0' + (rest < 0 ? -(rest % 10) : rest % 10)));
    return value < 0 ? "-" + digits : digits;
}
}  // namespace

namespace std {
inline namespace __1 {
string to_string(int value) { return text_of(value); }
string to_string(unsigned value) { return text_of(value); }
string to_string(long value) { return text_of(value); }
string to_string(unsigned long value) { return text_of(value); }
string to_string(long long value) { return text_of(value); }
string to_string(unsigned long long value) { return text_of(value); }
}  // namespace __1
}  // namespace std
