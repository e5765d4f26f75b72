import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import net.lingala.zip4j.ZipFile;
import net.lingala.zip4j.io.outputstream.ZipOutputStream;
import net.lingala.zip4j.model.ZipParameters;
import net.lingala.zip4j.model.enums.CompressionMethod;
import org.apache.commons.compress.archivers.zip.Zip64Mode;
import org.apache.commons.compress.archivers.zip.ZipArchiveEntry;
import org.apache.commons.compress.archivers.zip.ZipArchiveOutputStream;
import org.apache.commons.compress.archivers.zip.ZipArchiveOutputStream.UnicodeExtraFieldPolicy;

/** Packs a folder: LibraryWriter commons|zip4j VARIANT SOURCE OUT. */
public class LibraryWriter {
    public static void main(String[] arguments) throws IOException {
        String variant = arguments[1];
        Path source = Path.of(arguments[2]);
        Path out = Path.of(arguments[3]);
        List<Path> paths;
        try (Stream<Path> walk = Files.walk(source)) {
            paths = walk.filter(path -> !path.equals(source)).sorted().collect(Collectors.toList());
        }
        if (arguments[0].equals("commons")) {
            commons(variant, source, out, paths);
        } else if (variant.equals("streamed")) {
            zip4jStreamed(source, out, paths);
        } else {
            zip4j(variant, source, out, paths);
        }
    }

    private static void commons(String variant, Path source, Path out, List<Path> paths) throws IOException {
        ByteArrayOutputStream pipe = new ByteArrayOutputStream();
        boolean isStreamed = variant.contains("streamed");
        try (ZipArchiveOutputStream writer =
                isStreamed ? new ZipArchiveOutputStream(pipe) : new ZipArchiveOutputStream(out.toFile())) {
            writer.setUseZip64(variant.contains("zip64") ? Zip64Mode.Always : Zip64Mode.AsNeeded);
            if (variant.equals("unicode-paths")) {
                writer.setEncoding("windows-1252");
                writer.setFallbackToUTF8(true);
                writer.setCreateUnicodeExtraFields(UnicodeExtraFieldPolicy.ALWAYS);
            }
            if (variant.equals("code-page")) {
                writer.setEncoding("Cp437");
                writer.setUseLanguageEncodingFlag(false);
                writer.setCreateUnicodeExtraFields(UnicodeExtraFieldPolicy.NOT_ENCODEABLE);
            }
            for (Path path : paths) {
                ZipArchiveEntry entry = new ZipArchiveEntry(path.toFile(), source.relativize(path).toString());
                if (variant.equals("aligned")) {
                    entry.setAlignment(4096);
                }
                if (variant.equals("stored")) {
                    entry.setMethod(ZipArchiveEntry.STORED);
                }
                writer.putArchiveEntry(entry);
                if (Files.isRegularFile(path)) {
                    Files.copy(path, writer);
                }
                writer.closeArchiveEntry();
            }
        }
        if (isStreamed) {
            Files.write(out, pipe.toByteArray());
        }
    }

    private static void zip4j(String variant, Path source, Path out, List<Path> paths) throws IOException {
        ZipParameters parameters = new ZipParameters();
        if (variant.equals("stored")) {
            parameters.setCompressionMethod(CompressionMethod.STORE);
        }
        parameters.setIncludeRootFolder(false);
        try (ZipFile archive = new ZipFile(out.toFile())) {
            archive.addFolder(source.toFile(), parameters);
            archive.setComment("comment");
        }
    }

    private static void zip4jStreamed(Path source, Path out, List<Path> paths) throws IOException {
        try (ZipOutputStream writer = new ZipOutputStream(Files.newOutputStream(out))) {
            for (Path path : paths) {
                boolean isFolder = Files.isDirectory(path);
                ZipParameters parameters = new ZipParameters();
                parameters.setFileNameInZip(source.relativize(path) + (isFolder ? "/" : ""));
                writer.putNextEntry(parameters);
                if (!isFolder) {
                    Files.copy(path, writer);
                }
                writer.closeEntry();
            }
        }
    }
}
