// Packs a folder: archivewriter streamed|stored|raw|commented|filesystem SOURCE OUT.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"hash/crc32"
	"io/fs"
	"log"
	"os"
	"path/filepath"
)

func main() {
	variant, source := os.Args[1], os.Args[2]
	out, err := os.Create(os.Args[3])
	check(err)
	writer := zip.NewWriter(out)
	if variant == "commented" {
		check(writer.SetComment("größe"))
	}
	check(filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		check(err)
		name, err := filepath.Rel(source, path)
		check(err)
		if name == "." {
			return nil
		}
		if entry.IsDir() {
			_, err = writer.Create(name + "/")
			return err
		}
		content, err := os.ReadFile(path)
		check(err)
		add(writer, variant, name, entry, content)
		return nil
	}))
	check(writer.Close())
	check(out.Close())
}

func add(writer *zip.Writer, variant string, name string, entry fs.DirEntry, content []byte) {
	info, err := entry.Info()
	check(err)
	header, err := zip.FileInfoHeader(info)
	check(err)
	header.Name = name
	if variant != "stored" {
		header.Method = zip.Deflate
	}
	if variant == "commented" {
		header.Comment = "日本"
	}
	if variant == "raw" {
		var packed bytes.Buffer
		compressor, err := flate.NewWriter(&packed, 6)
		check(err)
		_, err = compressor.Write(content)
		check(err)
		check(compressor.Close())
		header.CRC32 = crc32.ChecksumIEEE(content)
		header.CompressedSize64 = uint64(packed.Len())
		header.UncompressedSize64 = uint64(len(content))
		target, err := writer.CreateRaw(header)
		check(err)
		_, err = target.Write(packed.Bytes())
		check(err)
		return
	}
	target, err := writer.CreateHeader(header)
	check(err)
	_, err = target.Write(content)
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
