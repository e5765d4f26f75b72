<?php // Packs a folder: archivewriter.php deflated|stored|bzip2|commented|contents SOURCE OUT.
[, $variant, $source, $out] = $argv;
$archive = new ZipArchive();
$archive->open($out, ZipArchive::CREATE | ZipArchive::EXCL) or exit(1);
$found = new RecursiveIteratorIterator(
    new RecursiveDirectoryIterator($source, FilesystemIterator::SKIP_DOTS),
    RecursiveIteratorIterator::SELF_FIRST
);
foreach ($found as $path => $entry) {
    $name = substr($path, strlen($source) + 1);
    if ($entry->isDir()) {
        $archive->addEmptyDir($name);
        continue;
    }
    $variant === 'contents' ? $archive->addFromString($name, file_get_contents($path)) : $archive->addFile($path, $name);
    if ($variant === 'stored') {
        $archive->setCompressionName($name, ZipArchive::CM_STORE);
    }
    if ($variant === 'bzip2') {
        $archive->setCompressionName($name, ZipArchive::CM_BZIP2);
    }
    if ($variant === 'commented') {
        $archive->setCommentName($name, '日本');
    }
}
if ($variant === 'commented') {
    $archive->setArchiveComment('größe');
}
$archive->close() or exit(1);
