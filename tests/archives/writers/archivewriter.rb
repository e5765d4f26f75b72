# Packs a folder: archivewriter.rb file|stream|zip64|stored SOURCE OUT.
require "zip"

variant, source, out = ARGV
Zip.unicode_names = true
Zip.write_zip64_support = variant == "zip64"
paths = Dir.glob("**/*", base: source).sort

if variant == "stream"
  buffer = Zip::OutputStream.write_buffer do |stream|
    paths.each do |name|
      path = File.join(source, name)
      stream.put_next_entry(File.directory?(path) ? "#{name}/" : name)
      stream.write(File.binread(path)) if File.file?(path)
    end
  end
  File.binwrite(out, buffer.string)
  exit
end

Zip.default_compression = Zlib::NO_COMPRESSION if variant == "stored"
Zip::File.open(out, Zip::File::CREATE) do |archive|
  archive.comment = "comment"
  paths.each { |name| archive.add(name, File.join(source, name)) }
end
