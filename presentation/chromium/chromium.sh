#!/bin/sh
# The unpacked browser as one command: with its libraries and fonts, and drawing without a GPU.
here=$(dirname "$0")
export LD_LIBRARY_PATH="$here/al2023/lib" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/chromium" --headless=shell --no-sandbox --no-zygote \
  --use-angle=swiftshader --enable-unsafe-swiftshader "$@"
